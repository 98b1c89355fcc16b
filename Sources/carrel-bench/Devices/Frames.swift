import DeviceModel
import Devices
import Foundation
import LinuxSystem

/// virtio-net on a wire that brings every frame back, beside what the frame would cost on
/// its way to another process at the least: one write and one read of a Unix socket.
func measureNetwork(_ settings: Settings) throws -> [Comparison] {
  var results: [Comparison] = []
  for count in [64, 1514] {
    var (split, packed, floor) = (Samples(), Samples(), Samples())
    for _ in 0..<settings.turns {
      split.add(try loopFrames(count, settings, packed: false))
      floor.add(try passFrames(count, settings))
      packed.add(try loopFrames(count, settings, packed: true))
    }
    results += [("split", split), ("packed", packed)].map { format, samples in
      Comparison(
        "virtio-net, \(count)-byte frames looped, \(format) ring; socket",
        unit: "/s", ours: samples.median, peer: floor.median, higherIsBetter: true)
    }
  }
  return results
}

/// What is sent is received. A frame without a buffer waits.
private final class LoopbackWire: NetworkBackend {
  var onReceive: ((NetworkFrame) -> Bool)?
  var onConnectionChange: (() -> Void)?
  let isConnected = true
  private var waiting: [NetworkFrame] = []

  func send(_ frame: NetworkFrame) {
    if !waiting.isEmpty || onReceive?(frame) != true { waiting.append(frame) }
  }

  func hasRoom() {
    let frames = waiting
    waiting = []
    for frame in frames { send(frame) }
  }
}

/// Sends frames and takes them back, so many under way.
final class FrameDriver {
  private static let underWay = 64
  private static let receiveBuffers = 128
  private static let bufferSize = 2048
  /// struct virtio_net_hdr (VIRTIO 1.2, section 5.1.6).
  private static let headerSize = 12
  private static let buffers = 0x10_0000
  static let address: [UInt8] = [0x52, 0x54, 0, 0, 0, 1]

  let memory: BenchMemory
  let receiver: DriverRing
  let transmitter: DriverRing
  private let count: Int
  private var sent: UInt64 = 0
  private var received: UInt64 = 0

  init(_ count: Int, packed: Bool) throws {
    self.count = count
    memory = try BenchMemory(size: 2 << 20)
    receiver = DriverRing(memory, at: 0x1_0000, size: 128, pieces: 1, packed: packed)
    transmitter = DriverRing(
      memory, at: 0x1_0000 + DriverRing.room, size: 128, pieces: 1, packed: packed)
  }

  private func send(_ slot: Int) {
    let at = Self.buffers + slot * Self.bufferSize
    let frame = at + Self.headerSize
    memory.put([UInt8](repeating: 0, count: Self.headerSize) + Self.address + Self.address, at: at)
    // A local experimental EtherType (IEEE 802), then the frame's number.
    memory.put(UInt16(0xB588), at: frame + 12)
    memory.put(sent, at: frame + 14)
    sent += 1
    transmitter.add(slot: slot, [.readable(at, Self.headerSize + count)])
  }

  private func offer(_ slot: Int) {
    receiver.add(slot: slot, [.writable(place(slot), Self.bufferSize)])
  }

  private func place(_ slot: Int) -> Int {
    Self.buffers + (Self.underWay + slot) * Self.bufferSize
  }

  /// Frames a second that came back.
  func run(_ doorway: Doorway, seconds: Double) throws -> Double {
    for slot in 0..<Self.receiveBuffers { offer(slot) }
    if receiver.publish() { doorway.kicks[0].signal() }
    let start = Clock.seconds
    for slot in 0..<Self.underWay { send(slot) }
    if transmitter.publish() { doorway.kicks[1].signal() }
    var isOver = false
    while !isOver || received < sent {
      try doorway.await("a frame")
      var isBehind = true
      while isBehind {
        isOver = Clock.seconds >= start + seconds
        while let slot = receiver.takeUsed() {
          try check(slot)
          offer(slot)
        }
        while let slot = transmitter.takeUsed() {
          if !isOver { send(slot) }
        }
        if receiver.publish() { doorway.kicks[0].signal() }
        if transmitter.publish() { doorway.kicks[1].signal() }
        isBehind = receiver.arm()
        isBehind = transmitter.arm() || isBehind
      }
    }
    return Double(received) / (Clock.seconds - start)
  }

  private func check(_ slot: Int) throws {
    let number = memory.get(place(slot) + Self.headerSize + 14, UInt64.self)
    guard number == received else {
      throw BenchError("frame \(number) came where \(received) was due")
    }
    received += 1
  }
}

private func loopFrames(_ count: Int, _ settings: Settings, packed: Bool) throws -> Double {
  let driver = try FrameDriver(count, packed: packed)
  let device = try LocalDevice(
    VirtioNet(address: FrameDriver.address, pairs: 1, backend: LoopbackWire(), state: nil),
    driver.memory, lock: Lock(), rings: [driver.receiver, driver.transmitter],
    features: VirtioFeature.version1 | VirtioFeature.eventIndex
      | (packed ? VirtioFeature.ringPacked : 0))
  defer { device.stop() }
  return try device.explained { try driver.run(device.doorway, seconds: settings.secondsPerTurn) }
}

/// Frames a second from one end of a socket to the other, in one thread.
private func passFrames(_ count: Int, _ settings: Settings) throws -> Double {
  let (near, far) = try UnixSocket.pair(kind: .packets)
  var frame = [UInt8](repeating: 0xA5, count: count)
  let start = Clock.seconds
  let deadline = start + settings.secondsPerTurn
  var passed = 0
  while Clock.seconds < deadline {
    for _ in 0..<64 {
      guard write(near.descriptor.raw, frame, count) == count,
        read(far.descriptor.raw, &frame, count) == count
      else { throw BenchError("a socket lost a frame") }
    }
    passed += 64
  }
  return Double(passed) / (Clock.seconds - start)
}
