import Brokering
import Foundation
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("A desktop's network", .needsKVM, .serialized)
struct NetworkTests {
  private let office = DesktopID(rawValue: "office-1")

  private func request(
    _ running: RunningSupervisor, _ network: Hardware.Network, queues: Int = 1
  ) throws -> LaunchRequest {
    let image = try running.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "image.raw")
    return LaunchRequest(
      desktop: office, generation: 1, image: Image(kind: .disk, path: image), memoryMiB: 64,
      cpus: 1, hardware: Hardware(network: network, networkQueues: queues), disk: .fresh,
      user: nil, keyboardLayout: "en-us")
  }

  @Test("has a passt of its own, which goes with the VMM however that ends", .needs("passt"))
  func passt() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try request(running, .user(.off)))
    let machine = try running.process()
    let number = machine.identifier
    let children = String(
      decoding: try Files.read("/proc/\(number)/task/\(number)/children"), as: UTF8.self)
    let child = try #require(children.split(separator: " ").first.flatMap { Int32($0) })
    let started = try #require(ProcessHandle.startTime(of: child))
    let passt = try ProcessHandle(identifier: child, startTime: started)
    #expect(passt.isRunning)
    let poller = try Poller()
    try poller.add(passt.descriptor, token: 1)
    try machine.send(.kill)
    try await offPool { _ = try poller.wait() }
    #expect(!passt.isRunning)
  }

  @Test(
    "has a TAP interface with the desktop's number, as long as the desktop runs", .needsRoot,
    arguments: [1, 2])
  func tap(queues: Int) async throws {
    let running = try RunningSupervisor()
    let prefix = "ct" + String(UInt16(truncatingIfNeeded: getpid()), radix: 16) + "x"
    let interface = "/sys/class/net/\(prefix)1"
    try await running.supervisor.start(
      try request(
        running, try #require(Hardware.Network("tap:\(prefix)")), queues: queues))
    let flags = String(decoding: try Files.read("\(interface)/tun_flags"), as: UTF8.self)
    // IFF_MULTI_QUEUE.
    #expect(
      Int(flags.trimmingCharacters(in: .newlines).dropFirst(2), radix: 16).map { $0 & 0x100 != 0 }
        == (queues > 1), "\(flags)")
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(!Files.exists(interface))
  }
}
