import DeviceModel
import Devices
import Foundation
import LinuxSystem

/// TCP data from another guest's TAP interface on the same bridge to a driver with merged
/// buffers: in segments of 64 KiB that its card takes in one piece, beside the same segments
/// cut by the kernel for a driver that agreed to nothing. One thread sends, reads and drives.
func measureSegments(_ settings: Settings) throws -> [Comparison] {
  guard geteuid() == 0 else { throw BenchError("only root can make a bridge to measure") }
  let outcome = Guarded<Result<(whole: Double, cut: Double), any Error>?>(nil)
  let thread = try LinuxSystem.Thread(name: "bridge") {
    let result = Result {
      try NetworkNamespace.enterNew()
      let bridge = try SegmentBridge()
      var (whole, cut) = (Samples(), Samples())
      for _ in 0..<settings.turns {
        whole.add(try bridge.pass(settings.secondsPerTurn, takesSegments: true))
        cut.add(try bridge.pass(settings.secondsPerTurn, takesSegments: false))
      }
      return (whole: whole.median, cut: cut.median)
    }
    outcome.withLock { $0 = result }
  }
  thread.join()
  guard let rates = try outcome.withLock({ $0 })?.get() else { return [] }
  return [
    Comparison(
      "virtio-net on TAP, TCP in 64 KiB segments; cut", unit: "MB/s", ours: rates.whole / 1e6,
      peer: rates.cut / 1e6, higherIsBetter: true)
  ]
}

/// The end of a bridge that a network card is on.
private final class TAPWire: NetworkBackend {
  let interface: TAPInterface
  var onReceive: ((NetworkFrame) -> Bool)?
  var onConnectionChange: (() -> Void)?
  let isConnected = true
  let takesUnfinished = true

  init(_ interface: TAPInterface) { self.interface = interface }

  func send(_ frame: NetworkFrame) {}
  func hasRoom() {}

  func accept(_ offloads: NetworkOffloads) {
    // The same bits, but for their names.
    try? interface.setOffloads(.init(rawValue: UInt32(offloads.rawValue)))
  }
}

private final class SegmentBridge {
  private static let buffers = 0x10_0000
  private static let bufferSize = 2048
  private static let count = 128
  private static let data = 44 * 1460
  private static let headers = 54
  /// GUEST_CSUM, GUEST_TSO4 and MRG_RXBUF.
  private static let segments: UInt64 = 1 << 1 | 1 << 7 | 1 << 15

  private let near: TAPInterface
  private let far: TAPInterface
  private var space = [UInt8](repeating: 0, count: 1 << 16)

  init() throws {
    near = try TAPInterface("near")
    far = try TAPInterface("far")
    let commands = """
      ip link add br0 type bridge forward_delay 0
      for i in near far; do ip link set $i master br0; ip link set $i up; done
      ip link set br0 up
      """
    let child = try ChildProcess(.init("/bin/sh", ["-e", "-c", commands]))
    guard case .exited(0) = try child.wait() else { throw BenchError("there is no bridge") }
  }

  /// Bytes of data a second.
  func pass(_ seconds: Double, takesSegments: Bool) throws -> Double {
    let memory = try BenchMemory(size: 2 << 20)
    let ring = DriverRing(memory, at: 0x1_0000, size: Self.count, pieces: 1, packed: false)
    let (wire, lock) = (TAPWire(near), Lock())
    let device = try LocalDevice(
      VirtioNet(address: FrameDriver.address, pairs: 1, backend: wire, state: nil), memory,
      lock: lock, rings: [ring],
      features: VirtioFeature.version1 | VirtioFeature.eventIndex
        | (takesSegments ? Self.segments : 0))
    defer { device.stop() }
    for slot in 0..<Self.count { offer(slot, ring) }
    _ = ring.publish()
    let segment = Self.segment()
    func send() throws -> Int {
      far.write(0, segment.header.bytes(), segment.bytes)
      let came = try take(wire, lock)
      while let slot = ring.takeUsed() { offer(slot, ring) }
      _ = ring.publish()
      return came
    }
    // A bridge forwards some time after its interfaces are up.
    let limit = Clock.seconds + 5
    while try send() != Self.data, Clock.seconds < limit { poll(nil, 0, 1) }
    let start = Clock.seconds
    var passed = 0
    while Clock.seconds < start + seconds {
      guard try send() == Self.data else {
        throw BenchError("not all of a segment came: \(device.complaint ?? "it was lost")")
      }
      passed += Self.data
    }
    return Double(passed) / (Clock.seconds - start)
  }

  private func offer(_ slot: Int, _ ring: DriverRing) {
    ring.add(
      slot: slot, [.writable(Self.buffers + slot * Self.bufferSize, Self.bufferSize)])
  }

  /// Hands the card what came; says how much data that is.
  private func take(_ wire: TAPWire, _ lock: Lock) throws -> Int {
    var found = 0
    while let (header, bytes) = try near.read(0, into: &space) {
      let frame = NetworkFrame(bytes, header: VirtioNetHeader(header))
      guard lock.withLock({ wire.onReceive?(frame) }) == true else {
        throw BenchError("the driver's buffers ran out")
      }
      // The interfaces themselves have something to say now and then.
      if bytes.starts(with: FrameDriver.address) { found += bytes.count - Self.headers }
    }
    return found
  }

  /// A large segment as a guest's driver leaves it to its card.
  private static func segment() -> NetworkFrame {
    func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
    let addresses: [UInt8] = [192, 0, 2, 1, 192, 0, 2, 2]
    let length = 20 + data
    var network = [0x45, 0] + big(20 + length) + [0, 1, 0x40, 0, 64, 6, 0, 0] + addresses
    network.replaceSubrange(10..<12, with: big(~sum(network) & 0xFFFF))
    // The pseudo-header's sum is in the checksum's field.
    let pseudo = sum(addresses + [0, 6] + big(length))
    let transport: [UInt8] =
      [0x9C, 0x40, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF] + big(pseudo) + [0, 0]
    var header = VirtioNetHeader()
    (header.needsChecksum, header.segmentation) = (true, .tcp4)
    (header.headerSize, header.segmentSize) = (headers, 1460)
    (header.checksumStart, header.checksumOffset) = (34, 16)
    let ethernet = FrameDriver.address + [0x52, 0x54, 0, 0, 0, 2, 8, 0]
    return NetworkFrame(
      ethernet + network + transport + [UInt8](repeating: 0xA5, count: data), header: header)
  }

  /// RFC 1071, not inverted.
  private static func sum(_ bytes: [UInt8]) -> Int {
    var total = 0
    for (index, byte) in bytes.enumerated() { total += index % 2 == 0 ? Int(byte) << 8 : Int(byte) }
    while total > 0xFFFF { total = total >> 16 + total & 0xFFFF }
    return total
  }
}
