import ControlAPI
import Foundation

/// Whether there is a /dev/kvm that this process may use.
enum KVMDevice {
  static func check() -> DoctorDocument.Check {
    let descriptor = open("/dev/kvm", O_RDWR | O_CLOEXEC)
    guard descriptor < 0 else {
      close(descriptor)
      return .init(name: "KVM", state: .ok, detail: "/dev/kvm opens")
    }
    switch errno {
    case ENOENT:
      return .init(
        name: "KVM", state: .failed, detail: "there is no /dev/kvm",
        remedy: "enable virtualization in the firmware (or nesting in the hypervisor above), then "
          + "'modprobe kvm_intel' or 'modprobe kvm_amd'")
    case EACCES, EPERM:
      return .init(
        name: "KVM", state: .failed, detail: "/dev/kvm may not be opened by \(NSUserName())",
        remedy: "usermod -aG kvm \(NSUserName()), then log in again")
    default:
      return .init(
        name: "KVM", state: .failed,
        detail: "/dev/kvm does not open: \(String(cString: strerror(errno)))",
        remedy: "look into 'dmesg | grep kvm'")
    }
  }
}

/// Asks the site's `carrel-vmm` whether a guest could run here: `carrel-vmm check --json`.
enum MachineProbe {
  private struct Report: Decodable {
    struct Check: Decodable {
      let name: String
      let ok: Bool
      let text: String
      let remedy: String?
    }

    let checks: [Check]
  }

  /// It answers in milliseconds unless the host is broken.
  private static let patience = 10.0

  /// What it says; about KVM at least what is known without it.
  static func checks(
    of program: String, device: DoctorDocument.Check
  ) -> [DoctorDocument.Check] {
    guard let report = run(program), !report.checks.isEmpty else {
      return [
        device,
        .init(
          name: "VMM check", state: .failed,
          detail: "'\(program) check --json' says nothing useful",
          remedy: "install the carrel-vmm that belongs to this carreld"),
      ]
    }
    return report.checks.map {
      .init(
        name: $0.name == "kvm" ? "KVM" : $0.name, state: $0.ok ? .ok : .failed, detail: $0.text,
        remedy: $0.remedy.flatMap { $0.isEmpty ? nil : $0 })
    }
  }

  private static func run(_ program: String) -> Report? {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = ["check", "--json"]
    process.standardInput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    let output = Pipe()
    process.standardOutput = output
    guard (try? process.run()) != nil else { return nil }
    let number = process.processIdentifier
    let end = DispatchWorkItem { kill(number, SIGKILL) }
    DispatchQueue.global().asyncAfter(deadline: .now() + patience, execute: end)
    let answer = try? output.fileHandleForReading.readToEnd()
    process.waitUntilExit()
    end.cancel()
    return answer.flatMap { try? JSONDecoder().decode(Report.self, from: $0) }
  }
}
