import Brokering
import LinuxSystem
import QMP
import Supervisor
import TestSupport
import Testing

@Suite("The limits of a running desktop's disk", .needsKVM, .serialized)
struct DiskLimitTests {
  private let office = DesktopID(rawValue: "office-1")
  private let names = ["bps", "bps_max", "iops", "iops_max"]

  private func request(
    _ running: RunningSupervisor, _ limits: DiskLimits, _ bus: Hardware.DiskBus,
    kind: Image.Kind = .disk
  ) throws -> LaunchRequest {
    let image =
      kind == .disk ? [UInt8](repeating: 0, count: 1 << 20) : SmallGuest.sleeping
    return LaunchRequest(
      desktop: office, generation: 1,
      image: Image(kind: kind, path: try running.directory.write(image, to: "image")),
      memoryMiB: 16, cpus: 1, hardware: Hardware(diskBus: bus), disk: .fresh, diskLimits: limits,
      user: nil, keyboardLayout: "en-us")
  }

  /// What its VMM says of its disk.
  private func limits(_ running: RunningSupervisor) throws -> [Int] {
    let socket = try UnixSocket.connect(to: running.path("control"), kind: .stream)
    var client = QMPClient()
    let identifier = client.command("query-block")
    while true {
      let output = client.pendingOutput()
      if !output.isEmpty { try socket.send(output) }
      for case .result(identifier, let result) in client.receive(try socket.receive().bytes) {
        let disk = try result.get().elements?.first { $0["removable"] == false }
        let medium = try #require(disk?["inserted"])
        return names.map { medium[$0]?.whole ?? 0 }
      }
    }
  }

  @Test(
    "are those of its start, and then those of each change", arguments: Hardware.DiskBus.allCases)
  func changes(bus: Hardware.DiskBus) async throws {
    let running = try RunningSupervisor()
    let supervisor = running.supervisor
    try await supervisor.start(
      try request(running, DiskLimits(operations: 500, bandwidth: 1 << 20), bus))
    #expect(try limits(running) == [1 << 20, 0, 500, 0])
    let other = DiskLimits(
      operations: 50, operationsBurst: 90, bandwidth: 2 << 20, bandwidthBurst: 3 << 20)
    for _ in 0..<2 {
      try await supervisor.limitDisk(office, to: other)
      #expect(try limits(running) == [2 << 20, 3 << 20, 50, 90])
    }
    // As after a crash of carreld.
    let next = try RunningSupervisor(after: running)
    #expect(try await next.supervisor.survey().map(\.state) == [.running])
    try await next.supervisor.limitDisk(office, to: DiskLimits(operations: 7))
    #expect(try limits(running) == [0, 0, 7, 0])
    try await next.supervisor.limitDisk(office, to: DiskLimits())
    #expect(try limits(running) == [0, 0, 0, 0])
    try await next.supervisor.discard(office)
    let error = await #expect(throws: LaunchError.self) {
      try await next.supervisor.limitDisk(office, to: other)
    }
    #expect(error?.kind == .notRunning)
  }

  @Test("are nothing to one without a disk")
  func withoutDisk() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try request(running, DiskLimits(), .ide, kind: .kernel))
    try await running.supervisor.limitDisk(office, to: DiskLimits(operations: 7))
    try await running.supervisor.discard(office)
  }
}
