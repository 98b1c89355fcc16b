import Devices
import Foundation
import LinuxSystem

/// QEMU's storage daemon as the device behind a driver's ring: what it exports as
/// vhost-user-blk, spoken to as QEMU would ("Vhost-user Protocol" of QEMU's manual).
///
/// It is told less than it could be: no protocol features, so rings run from the start.
final class VhostUserDisk {
  let doorway: Doorway
  private let daemon: Subject
  private let socket: UnixSocket

  private enum Request {
    static let getFeatures: UInt32 = 1
    static let setFeatures: UInt32 = 2
    static let setOwner: UInt32 = 3
    static let setMemoryTable: UInt32 = 5
    static let setRingSize: UInt32 = 8
    static let setRingAddresses: UInt32 = 9
    static let setRingBase: UInt32 = 10
    static let setRingKick: UInt32 = 12
    static let setRingCall: UInt32 = 13
  }

  private static let version: UInt32 = 1
  private static let headerSize = 12

  /// - Parameter format: as the daemon calls it.
  init(
    image: String, format: String, _ memory: BenchMemory, ring: DriverRing, features: UInt64
  ) throws {
    doorway = try Doorway(queues: 1)
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(
      "carrel-bench-\(UUID().uuidString.prefix(8)).sock"
    ).path
    daemon = try Subject(
      name: "qemu-storage-daemon",
      [
        "qemu-storage-daemon", "--blockdev", "driver=file,node-name=file,filename=\(image)",
        "--blockdev", "driver=\(format),node-name=disk,file=file", "--export",
        "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=\(path),writable=on",
      ])
    defer { unlink(path) }
    socket = try Self.connect(to: path, daemon)
    try negotiate(features)
    try share(memory, ring)
  }

  var processIdentifier: Int32 { daemon.process.processIdentifier }

  func stop() { daemon.stop() }

  /// The daemon says in no other way that it listens.
  private static func connect(to path: String, _ daemon: Subject) throws -> UnixSocket {
    let deadline = Clock.seconds + 10
    while true {
      if let socket = try? UnixSocket.connect(to: path, kind: .stream) { return socket }
      guard daemon.process.isRunning, Clock.seconds < deadline else {
        throw BenchError("qemu-storage-daemon did not start")
      }
      var nothing = pollfd()
      poll(&nothing, 0, 5)
    }
  }

  private func negotiate(_ features: UInt64) throws {
    try send(Request.getFeatures, [])
    var answer: [UInt8] = []
    while answer.count < Self.headerSize + 8 {
      let part = try socket.receive()
      guard !part.isEnd else { throw BenchError("qemu-storage-daemon hung up") }
      answer += part.bytes
    }
    let offered = answer[Self.headerSize..<Self.headerSize + 8].reversed()
      .reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard offered & features == features else {
      throw BenchError(
        "qemu-storage-daemon lacks features 0x\(String(features & ~offered, radix: 16))")
    }
    try send(Request.setOwner, [])
    try send(Request.setFeatures, LittleEndian.bytes(features))
  }

  private func share(_ memory: BenchMemory, _ ring: DriverRing) throws {
    // Any address does for ours, as all that is named lies in this one region.
    let base: UInt64 = 1 << 40
    try send(
      Request.setMemoryTable,
      LittleEndian.bytes(UInt32(1)) + LittleEndian.bytes(UInt32(0)) + LittleEndian.bytes(UInt64(0))
        + LittleEndian.bytes(UInt64(memory.bytes.count))
        + LittleEndian.bytes(base) + LittleEndian.bytes(UInt64(0)), [memory.shared.descriptor])
    let index = LittleEndian.bytes(UInt32(0))
    try send(Request.setRingSize, index + LittleEndian.bytes(UInt32(ring.size)))
    try send(Request.setRingBase, index + LittleEndian.bytes(UInt32(0)))
    // Index, flags; the descriptor, used and available rings; no log.
    let areas = [ring.descriptors, ring.deviceArea, ring.driverArea].map { base + UInt64($0) }
    try send(
      Request.setRingAddresses,
      index + LittleEndian.bytes(UInt32(0)) + areas.flatMap { LittleEndian.bytes($0) }
        + LittleEndian.bytes(UInt64(0)))
    try send(Request.setRingCall, LittleEndian.bytes(UInt64(0)), [doorway.call.descriptor])
    try send(Request.setRingKick, LittleEndian.bytes(UInt64(0)), [doorway.kicks[0].descriptor])
  }

  private func send(
    _ request: UInt32, _ payload: [UInt8], _ descriptors: [FileDescriptor] = []
  ) throws {
    try socket.send(
      LittleEndian.bytes(request) + LittleEndian.bytes(Self.version)
        + LittleEndian.bytes(UInt32(payload.count)) + payload,
      descriptors: descriptors)
  }
}
