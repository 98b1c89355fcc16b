import Brokering
import CarrelBase
import QMP

/// The command line of a desktop's VMM, of a template's process, and a clone's request.
/// Pure.
package struct VMMCommand: Hashable, Sendable {
  package let arguments: [String]

  /// - Parameter goesOn: from where the desktop was suspended.
  package init(
    _ request: LaunchRequest, in directory: DesktopDirectory, disk: DesktopDisk?,
    goesOn: Bool = false
  ) {
    let part = MachinePart(
      TemplateMachine(of: request), in: directory, disk: disk, request.diskLimits)
    var arguments =
      [
        "run", "--name", request.desktop.rawValue,
        "--runtime-directory", directory.runtime,
        "--display-link", directory.displayLink,
        "--control", directory.control,
      ] + part.arguments
    if goesOn {
      arguments += ["--restore", "\(OptionText.escaped(directory.suspended)),remove=on"]
    }
    self.arguments = arguments
  }

  /// Finds out whether a desktop goes on from what was saved of it to `memory`; runs nothing.
  ///
  /// - Parameter disk: one of its disks.
  init(
    checking memory: String, of shape: DesktopShape, in directory: DesktopDirectory,
    disk: DesktopDisk?
  ) {
    let part = MachinePart(
      TemplateMachine(of: shape), in: directory, disk: disk, isTemplate: true)
    arguments =
      ["run", "--name", directory.desktop.rawValue]
      + part.arguments + ["--restore", "\(OptionText.escaped(memory)),check=only"]
  }

  /// - Parameter placeholder: whose files and sockets stand for those that each clone has.
  init(
    template record: TemplateRecord, in template: TemplateDirectory, placeholder: DesktopDirectory
  ) {
    let disk = template.disk(record).map {
      DesktopDisk(path: $0.path, format: $0.format, over: nil, bases: placeholder.bases)
    }
    let part = MachinePart(record.machine, in: placeholder, disk: disk, isTemplate: true)
    arguments =
      [
        "template", "--name", template.name, "--restore",
        OptionText.escaped(template.memory(record)), "--listen", template.socket,
      ] + part.arguments
  }
}

extension CloneRequest {
  /// What makes a clone of its template that desktop. Its network cables are pulled out.
  init(_ request: LaunchRequest, in directory: DesktopDirectory, disk: DesktopDisk?) {
    self.init(name: request.desktop.rawValue)
    let part = MachinePart(
      TemplateMachine(of: request), in: directory, disk: disk, request.diskLimits)
    disks = part.disk.map { [$0] } ?? []
    networks = part.network.map { [$0] } ?? []
    channels = [part.channel]
    firmwareFiles = part.firmwareFiles
    displayLink = directory.displayLink
    control = directory.control
    runtimeDirectory = directory.runtime
    if request.hardware.firmware == .uefi, request.image.kind != .kernel {
      nvram = directory.variables
    }
  }
}

/// What a machine is made of, as the options of `carrel-vmm` say it.
private struct MachinePart {
  private let machine: TemplateMachine
  private let directory: DesktopDirectory
  let disk: String?
  let network: String?
  let channel: String
  /// What the guest is told.
  let firmwareFiles: [String]

  /// - Parameter isTemplate: it stands for machines that have files of their own.
  init(
    _ machine: TemplateMachine, in directory: DesktopDirectory, disk: DesktopDisk?,
    _ limits: DiskLimits = DiskLimits(), isTemplate: Bool = false
  ) {
    self.machine = machine
    self.directory = directory
    self.disk = disk.map {
      $0.argument(bus: machine.hardware.diskBus) + Self.options(limits)
    }
    let queues = machine.hardware.networkQueues
    let several = queues == 1 ? "" : ",queues=\(queues)"
    network =
      switch machine.hardware.network {
      case .none: nil
      // The VMM starts passt, which has a user and namespaces of its own.
      case .user(let host): "user,host=\(host.rawValue)\(several)"
      case .tap(let prefix): "tap:\(prefix)\(directory.desktop.number)\(several)"
      }
    channel = "name=org.qemu.guest_agent.0,socket=\(OptionText.escaped(directory.agent))"
    let files = [
      ("desktop", directory.desktopFile), ("user", directory.userFile),
      ("keyboard", directory.keyboardFile),
    ]
    firmwareFiles =
      files.map {
        "name=opt/carrel/\($0),\(isTemplate ? "string=" : "file=\(OptionText.escaped($1))")"
      }
      + ["name=opt/carrel/hostname,string=\(isTemplate ? "" : directory.desktop.rawValue)"]
  }

  var arguments: [String] {
    let hardware = machine.hardware
    var arguments = [
      "--memory", "\(machine.memoryMiB)M", "--cpus", "\(machine.cpus)", "--channel", channel,
      // The pool says what becomes of a desktop that crashed.
      "--on-internal-error", "end",
    ]
    for file in firmwareFiles { arguments += ["--fw-cfg", file] }
    arguments += ["--vga", hardware.video.description, "--audio", hardware.audio.rawValue]
    if let network { arguments += ["--net", network] }
    if hardware.usb { arguments.append("--usb") }
    return arguments + boot
  }

  /// For the disk's argument.
  private static func options(_ limits: DiskLimits) -> String {
    let values = [
      ("iops", limits.operations), ("iops-max", limits.operationsBurst),
      ("bps", limits.bandwidth), ("bps-max", limits.bandwidthBurst),
    ]
    return values.map { name, value in value.map { ",\(name)=\($0)" } ?? "" }.joined()
  }

  private var boot: [String] {
    let firmware =
      ["--firmware", machine.hardware.firmware.rawValue]
      + (machine.hardware.firmware == .uefi ? ["--nvram", directory.variables] : [])
    let disk = disk.map { ["--disk", $0] } ?? []
    switch machine.image.kind {
    case .kernel:
      return ["--kernel", machine.image.path]
        + (machine.image.arguments.isEmpty ? [] : ["--append", machine.image.arguments])
    case .iso:
      // An empty disk does not boot: the installer does, until it has filled it.
      return firmware + ["--cdrom", machine.image.path]
        + (disk.isEmpty ? ["--boot", "d"] : disk + ["--boot", "c,d"])
    case .disk:
      return firmware + disk + ["--boot", "c"]
    }
  }
}
