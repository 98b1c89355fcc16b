import KVM
import LinuxSystem

/// One thing that the host must have, whether it does, and what helps.
public struct HostCheck: Hashable, Sendable {
  public let name: String
  public let isOK: Bool
  public let text: String
  /// Empty where nothing is wrong.
  public let remedy: String

  private static func good(_ name: String, _ text: String) -> HostCheck {
    HostCheck(name: name, isOK: true, text: text, remedy: "")
  }

  private static func bad(_ name: String, _ text: String, _ remedy: String) -> HostCheck {
    HostCheck(name: name, isOK: false, text: text, remedy: remedy)
  }

  /// Looks at KVM and at the firmware's files.
  public static func all(
    device: String = "/dev/kvm",
    firmwareDirectory: String = MachineConfiguration().firmwareDirectory
  ) -> [HostCheck] {
    kvm(device) + [
      firmware("firmware", "SeaBIOS") { () throws(MachineError) in
        try FirmwareImage.seaBIOS(in: firmwareDirectory)
      },
      firmware("vga-bios", "the VGA BIOS") { () throws(MachineError) in
        try FirmwareImage.vgaBIOS(of: .standard, in: firmwareDirectory)
      },
      stillScreens,
    ]
  }

  private static func kvm(_ device: String) -> [HostCheck] {
    let system: KVMSystem
    do {
      system = try KVMSystem(path: device, required: [])
    } catch {
      let name = error.kind == .apiVersion ? "kvm-api" : "kvm"
      let opened = error.kind == .apiVersion ? [good("kvm", "\(device) opens")] : []
      return opened + [bad(name, error.problem, error.remedy ?? "look into 'dmesg | grep kvm'")]
    }
    var checks = [
      good("kvm", "\(device) opens"),
      good("kvm-api", "it speaks API version \(KVMSystem.apiVersion)"),
    ]
    let missing = KVMCapability.required.compactMap { system.problem(with: $0) }
    checks += missing.map { capability, error in
      bad(capability.name, error.problem, error.remedy ?? "")
    }
    if missing.isEmpty {
      let count = KVMCapability.required.count
      checks.append(good("kvm-capabilities", "it has all \(count) capabilities that are needed"))
    }
    return checks + [host] + completion
  }

  private static var host: HostCheck {
    good(
      "host",
      ProcessorModel.interpretsKernels
        ? "software virtualization (kvm_pvm): guests' kernels are interpreted, about 2 million"
          + " instructions a second; their user programs run natively"
        : "hardware virtualization")
  }

  /// What KVM's emulator lacks, of which hosts with hardware virtualization know nothing.
  private static var completion: [HostCheck] {
    guard ProcessorModel.interpretsKernels else { return [] }
    guard InstructionCompletion.isAvailable else {
      return [
        bad(
          "completion", "instructions that KVM cannot emulate stop their guest: Zydis is missing",
          "apt-get install libzydis4.0")
      ]
    }
    return [
      good("completion", "instructions that KVM cannot emulate are completed by carrel-vmm")
    ]
  }

  /// No condition for running guests, but worth a word.
  private static var stillScreens: HostCheck {
    do {
      _ = try WriteWatch(SharedMemory(name: "carrel-check", size: 4096).map())
      return good("still-screens", "a screen that stands still costs nothing (userfaultfd)")
    } catch {
      return good(
        "still-screens",
        "a screen that stands still is looked at 17 times a second, since there is no"
          + " userfaultfd (\(error.context)); root has it, others with access to"
          + " /dev/userfaultfd or 'sysctl vm.unprivileged_userfaultfd=1'")
    }
  }

  private static func firmware(
    _ name: String, _ what: String, _ load: () throws(MachineError) -> FirmwareImage
  ) -> HostCheck {
    do {
      return good(name, "\(what) has \(try load().bytes.count >> 10) KiB")
    } catch {
      return bad(name, error.problem, error.remedy ?? "")
    }
  }
}
