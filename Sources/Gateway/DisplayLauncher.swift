import Brokering
import LinuxSystem

/// Starts display processes for the gateway. `carreld` puts the supervisor behind it.
public protocol DisplayLauncher: Sendable {
  /// Starts one for the viewer connection `id` and returns its sockets. Called from
  /// any task, once per login; the gateway closes both sockets when the viewer goes,
  /// which ends the process.
  func launch(for id: ConnectionID) async throws -> DisplayEndpoint
}

/// This side's ends of the sockets that a display process was given.
public struct DisplayEndpoint: Sendable {
  /// A stream: RFB, the display being the server.
  public let viewer: FileDescriptor
  /// Packets: `DisplayMessage` to it, `DisplayReport` from it.
  public let control: UnixSocket

  public init(viewer: FileDescriptor, control: UnixSocket) {
    self.viewer = viewer
    self.control = control
  }
}
