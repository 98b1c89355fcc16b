import Brokering

/// The command line of a desktop's VMM. Pure.
struct VMMCommand: Hashable, Sendable {
  let arguments: [String]

  init(_ request: LaunchRequest, in directory: DesktopDirectory) {
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
    switch request.image.kind {
    case .kernel:
      arguments += ["--kernel", request.image.path]
      if !request.image.arguments.isEmpty { arguments += ["--append", request.image.arguments] }
    case .iso:
      arguments += ["--firmware", "bios", "--cdrom", request.image.path]
      if request.diskMiB == nil {
        arguments += ["--boot", "d"]
      } else {
        // An empty disk does not boot: the installer does, until it has filled it.
        arguments += ["--disk", "\(directory.disk),format=raw,bus=ide", "--boot", "c,d"]
      }
    case .disk:
      arguments += [
        "--firmware", "bios", "--disk", "\(directory.disk),format=raw,bus=ide", "--boot", "c",
      ]
    }
    self.arguments = arguments
  }
}
