import Brokering
import LinuxSystem

/// This side's ends of a display process's sockets. Closing either ends the process.
public struct SpawnedDisplay: Sendable {
  /// A stream: RFB, the display process being the server.
  public let viewer: FileDescriptor
  /// Packets of text.
  public let control: UnixSocket
  public let process: ProcessHandle
}

extension Supervisor {
  /// What the child sees.
  private static let clientNumber: Int32 = 3
  private static let controlNumber: Int32 = 4

  /// Starts the display process of one viewer. Blocks for some milliseconds on a
  /// thread of its own.
  public nonisolated func spawnDisplay(for id: ConnectionID) async throws -> SpawnedDisplay {
    try await offPool { try self.spawn(for: id) }
  }

  private nonisolated func spawn(for id: ConnectionID) throws -> SpawnedDisplay {
    let (viewer, client) = try UnixSocket.pair(kind: .stream)
    let (control, controlled) = try UnixSocket.pair(kind: .packets)
    try Files.makeDirectory(settings.runtimeDirectory)
    let log = try LogFile.open(settings.runtimeDirectory + "/displays.log")
    var request = ChildProcess.Request(
      settings.display,
      [
        "--client-fd", "\(Self.clientNumber)", "--control-fd", "\(Self.controlNumber)",
        "--keyboard-layout", settings.keyboardLayout,
      ])
    request.environment = ["PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"]
    request.directory = "/"
    request.descriptors = [
      0: try FileDescriptor.open("/dev/null"), 1: log, 2: log,
      Self.clientNumber: client.descriptor, Self.controlNumber: controlled.descriptor,
    ]
    request.newSession = true
    failpoints.hit("supervisor.display.before")
    let child = try ChildProcess(request)
    failpoints.hit("supervisor.display.after")
    let logger = self.logger
    do {
      try watcher.watch(child) { exit in
        guard let exit, exit != .exited(0) else { return }
        logger.warning(
          "display process ended", metadata: ["connection": "\(id)", "exit": "\(exit)"])
      }
    } catch {
      // Nobody else would reap it.
      try? child.handle.send(.kill)
      _ = try? child.wait()
      throw error
    }
    return SpawnedDisplay(viewer: viewer.descriptor, control: control, process: child.handle)
  }
}
