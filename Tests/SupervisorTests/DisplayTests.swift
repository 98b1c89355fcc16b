import Brokering
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Display processes")
struct DisplayTests {
  @Test("one greets as an RFB server and ends when its control socket closes")
  func greeting() async throws {
    let running = try RunningSupervisor()
    let display = try await running.supervisor.spawnDisplay(for: ConnectionID(1))
    let viewer = UnixSocket(display.viewer)
    let greeting = try await offPool { try viewer.receive(capacity: 12).bytes }
    #expect(greeting == Array("RFB 003.008\n".utf8))
    display.control.shutDown()
    let end = try await offPool { try viewer.receive() }
    #expect(end.isEnd)
  }

  @Test("their common log begins anew when it has grown long")
  func log() async throws {
    let running = try RunningSupervisor()
    let path = running.settings.runtimeDirectory + "/displays.log"
    for (size, isKept) in [(1 << 20, true), ((1 << 20) + 1, false)] {
      try Files.replace(path, with: [UInt8](repeating: 0x2E, count: size))
      let display = try await running.supervisor.spawnDisplay(for: ConnectionID(1))
      display.control.shutDown()
      let grown = try FileDescriptor.open(path).size()
      #expect(isKept ? grown >= UInt64(size) : grown < 1 << 16)
    }
  }

  @Test("a missing program is named")
  func missing() async throws {
    let running = try RunningSupervisor { $0.display = "/nowhere/carrel-display" }
    let error = await #expect(throws: SystemError.self) {
      try await running.supervisor.spawnDisplay(for: ConnectionID(1))
    }
    #expect(error?.description.contains("/nowhere/carrel-display") == true)
  }
}
