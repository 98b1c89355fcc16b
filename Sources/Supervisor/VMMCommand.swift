import Brokering

/// The command line of a desktop's VMM. Pure.
package struct VMMCommand: Hashable, Sendable {
  package let arguments: [String]

  /// - Parameter goesOn: from where the desktop was suspended.
  package init(
    _ request: LaunchRequest, in directory: DesktopDirectory, disk: DesktopDisk?,
    goesOn: Bool = false
  ) {
    var arguments = [
      "run", "--name", request.desktop.rawValue,
      "--memory", "\(request.memoryMiB)M", "--cpus", "\(request.cpus)",
      "--runtime-directory", directory.runtime,
      "--display-link", directory.displayLink,
      "--control", directory.control,
      "--channel", "name=org.qemu.guest_agent.0,socket=\(directory.agent)",
      // The pool says what becomes of a desktop that crashed.
      "--on-internal-error", "end",
      "--fw-cfg", "name=opt/carrel/desktop,file=\(directory.desktopFile)",
      "--fw-cfg", "name=opt/carrel/user,file=\(directory.userFile)",
      "--fw-cfg", "name=opt/carrel/keyboard,file=\(directory.keyboardFile)",
    ]
    arguments += Self.cards(request)
    if goesOn { arguments += ["--restore", "\(directory.suspended),remove=on"] }
    let firmware =
      ["--firmware", request.hardware.firmware.rawValue]
      + (request.hardware.firmware == .uefi ? ["--nvram", directory.variables] : [])
    let disk = disk.map { ["--disk", $0.argument(bus: request.hardware.diskBus)] } ?? []
    switch request.image.kind {
    case .kernel:
      arguments += ["--kernel", request.image.path]
      if !request.image.arguments.isEmpty { arguments += ["--append", request.image.arguments] }
    case .iso:
      arguments += firmware + ["--cdrom", request.image.path]
      if request.diskMiB == nil {
        arguments += ["--boot", "d"]
      } else {
        // An empty disk does not boot: the installer does, until it has filled it.
        arguments += disk + ["--boot", "c,d"]
      }
    case .disk:
      arguments += firmware + disk + ["--boot", "c"]
    }
    self.arguments = arguments
  }

  private static func cards(_ request: LaunchRequest) -> [String] {
    let hardware = request.hardware
    var arguments = [
      "--vga", hardware.video.description, "--audio", hardware.audio.rawValue,
    ]
    switch hardware.network {
    case .none: break
    // The VMM starts passt, which has a user and namespaces of its own.
    case .user(let host): arguments += ["--net", "user,host=\(host.rawValue)"]
    case .tap(let prefix): arguments += ["--net", "tap:\(prefix)\(request.desktop.number)"]
    }
    return arguments + (hardware.usb ? ["--usb"] : [])
  }
}
