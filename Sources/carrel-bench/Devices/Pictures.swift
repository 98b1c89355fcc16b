import Devices
import Foundation
import LinuxSystem

/// Whole pictures that virtio-gpu takes from a driver's memory and shows, beside copies of
/// as many bytes.
func measureGraphics(_ settings: Settings) throws -> [Comparison] {
  var (split, packed, floor) = (Samples(), Samples(), Samples())
  for _ in 0..<settings.turns {
    split.add(try showPictures(settings, packed: false))
    floor.add(try copyPictures(settings))
    packed.add(try showPictures(settings, packed: true))
  }
  return [("split", split), ("packed", packed)].map { format, samples in
    Comparison(
      "virtio-gpu, 1920x1080 shown, \(format) ring; memcpy", unit: "/s",
      ours: samples.median, peer: floor.median, higherIsBetter: true)
  }
}

private enum Picture {
  static let width = 1920
  static let height = 1080
  static let count = width * height * 4
}

/// A driver of one picture, whose memory is single pages (VIRTIO 1.2, section 5.7.6).
private final class PictureDriver {
  private static let pageSize = 4096
  private static let request = 0x10_0000
  private static let requestSize = 0x1_0000
  private static let answer = 0x1F_0000
  private static let picture = 0x20_0000
  private static let answerSize = 24
  private static let done: UInt32 = 0x1100

  let memory: BenchMemory
  let ring: DriverRing
  private var slot = 0

  init(packed: Bool) throws {
    memory = try BenchMemory(size: Self.picture + Picture.count + Self.pageSize)
    memory.put([UInt8](repeating: 0x5A, count: Picture.count), at: Self.picture)
    ring = DriverRing(memory, at: 0x1_0000, size: 64, pieces: 2, packed: packed)
  }

  func run(_ doorway: Doorway, seconds: Double) throws -> Double {
    let rect = [0, 0, Picture.width, Picture.height]
    // RESOURCE_CREATE_2D of B8G8R8X8, ATTACH_BACKING, SET_SCANOUT.
    try carryOut([(0x0101, words([1, 2, Picture.width, Picture.height]))], doorway)
    let pages = (Picture.count + Self.pageSize - 1) / Self.pageSize
    let backing = (0..<pages).flatMap {
      LittleEndian.bytes(UInt64(Self.picture + $0 * Self.pageSize)) + words([Self.pageSize, 0])
    }
    try carryOut([(0x0106, words([1, pages]) + backing)], doorway)
    try carryOut([(0x0103, words(rect + [0, 1]))], doorway)
    let start = Clock.seconds
    var shown = 0
    while Clock.seconds < start + seconds {
      // TRANSFER_TO_HOST_2D from offset 0, RESOURCE_FLUSH.
      try carryOut(
        [(0x0105, words(rect + [0, 0, 1, 0])), (0x0104, words(rect + [1, 0]))], doorway)
      shown += 1
    }
    return Double(shown) / (Clock.seconds - start)
  }

  private func words(_ numbers: [Int]) -> [UInt8] {
    numbers.flatMap { LittleEndian.bytes(UInt32(truncatingIfNeeded: $0)) }
  }

  /// Has the card do all of it, and waits.
  private func carryOut(_ commands: [(type: UInt32, body: [UInt8])], _ doorway: Doorway) throws {
    for (index, command) in commands.enumerated() {
      let header = LittleEndian.bytes(command.type) + [UInt8](repeating: 0, count: 20)
      let request = header + command.body
      let at = Self.request + index * Self.requestSize
      memory.put(request, at: at)
      ring.add(
        slot: (slot + index) % 32,
        [
          .readable(at, request.count),
          .writable(Self.answer + index * Self.answerSize, Self.answerSize),
        ])
    }
    slot += commands.count
    if ring.publish() { doorway.kicks[0].signal() }
    var left = commands.count
    while left > 0 {
      while ring.takeUsed() != nil { left -= 1 }
      if left > 0, !ring.arm() { try doorway.await("a graphics command") }
    }
    for (index, command) in commands.enumerated() {
      let answer = memory.get(Self.answer + index * Self.answerSize, UInt32.self)
      guard answer == Self.done else {
        throw BenchError(
          "graphics command 0x\(String(command.type, radix: 16)) got 0x\(String(answer, radix: 16))"
        )
      }
    }
  }
}

private func showPictures(_ settings: Settings, packed: Bool) throws -> Double {
  let driver = try PictureDriver(packed: packed)
  let pictures = try BenchMemory(size: VirtioGPU.memorySize)
  let device = try LocalDevice(
    VirtioGPU(memory: pictures, outputs: 1, state: nil), driver.memory, lock: Lock(),
    rings: [driver.ring],
    features: VirtioFeature.version1 | VirtioFeature.eventIndex
      | (packed ? VirtioFeature.ringPacked : 0))
  defer { device.stop() }
  return try device.explained { try driver.run(device.doorway, seconds: settings.secondsPerTurn) }
}

private func copyPictures(_ settings: Settings) throws -> Double {
  let (source, target) = (
    try BenchMemory(size: Picture.count), try BenchMemory(size: Picture.count)
  )
  source.put([UInt8](repeating: 0x5A, count: Picture.count), at: 0)
  let start = Clock.seconds
  var copied = 0
  while Clock.seconds < start + settings.secondsPerTurn {
    target.bytes.copyMemory(from: UnsafeRawBufferPointer(source.bytes))
    copied += 1
  }
  return Double(copied) / (Clock.seconds - start)
}
