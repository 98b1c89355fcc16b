import ArgumentParser
import Display
import Glibc
import LinuxSystem
import VNCServer

/// One viewer's display process. `carreld` starts it with two connected sockets.
@main
struct CarrelDisplay: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "carrel-display",
    abstract: "Shows one desktop to one VNC viewer.",
    discussion: """
      Started by carreld, which has authenticated the viewer. The client descriptor is a \
      stream socket on which RFB 3.8 is spoken with security type None. The control \
      descriptor is a SOCK_SEQPACKET socket; each packet is one message in UTF-8.

      To this process: attach PATH, layout en-us|de|fr, detach, status PERCENT|- TEXT, \
      name TEXT, end TEXT.
      From it: attached, waiting, power shutdown|reboot|reset, closed REASON.

      The end of either socket ends the process.
      """)

  @Option(name: .customLong("client-fd"), help: "The viewer's connected socket.")
  var clientDescriptor: Int32

  @Option(name: .customLong("control-fd"), help: "carreld's control socket.")
  var controlDescriptor: Int32

  @Option(
    help: "What keysyms mean: \(KeyboardLayout.allCases.map(\.rawValue).joined(separator: ", ")).")
  var keyboardLayout: KeyboardLayout = .enUS

  @Option(help: "The desktop's name, until the desktop tells its own.")
  var name = "Carrel"

  func validate() throws {
    for (option, descriptor) in [
      ("--client-fd", clientDescriptor), ("--control-fd", controlDescriptor),
    ] {
      // SAFETY: stat is a plain C structure that fstat fills.
      var status = stat()
      guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
        throw ValidationError("\(option) \(descriptor) is not an open socket")
      }
    }
  }

  func run() throws {
    let control = ControlChannel(UnixSocket(FileDescriptor(owning: controlDescriptor)))
    var configuration = ViewerConfiguration()
    configuration.name = name
    configuration.layout = keyboardLayout
    let session = try ViewerSession(
      client: FileDescriptor(owning: clientDescriptor), configuration: configuration
    ) { event in
      control.send(event)
      switch event {
      // What drew the status screen and read the arguments is not needed for a while.
      case .attached: ProgramText.release()
      case .closed: Glibc.exit(0)
      default: break
      }
    }
    control.serve(session)
  }
}

extension KeyboardLayout: ExpressibleByArgument {}
