import Devices
import Foundation

/// A block driver that keeps a queue of reads or writes full: VIRTIO 1.2, section 5.2.6.
final class DiskDriver {
  struct Workload {
    let name: String
    let isWrite: Bool
    let isRandom: Bool
    let blockSize: Int
    let depth: Int
  }

  private static let sector = 512
  private static let pieces = 3
  private static let ringBase = 0x1_0000
  private static let headers = 0x2_0000
  private static let statuses = 0x3_0000
  private static let data = 0x10_0000
  private static let headerSize = 16
  /// VIRTIO_BLK_F_FLUSH: without it, every write would be made durable.
  static let features: UInt64 =
    1 << 9 | VirtioFeature.version1 | VirtioFeature.eventIndex

  let memory: BenchMemory
  let ring: DriverRing
  private let workload: Workload
  private let blocks: UInt64
  private var nextBlock: UInt64 = 0
  /// Of a xorshift generator; the same for every device.
  private var random: UInt64 = 0x9E37_79B9_7F4A_7C15
  private var expected: [UInt64]

  init(_ workload: Workload, imageSize: Int, packed: Bool) throws {
    self.workload = workload
    blocks = UInt64(imageSize / workload.blockSize)
    expected = Array(repeating: 0, count: workload.depth)
    memory = try BenchMemory(size: Self.data + workload.depth * workload.blockSize)
    ring = DriverRing(memory, at: Self.ringBase, size: 128, pieces: Self.pieces, packed: packed)
  }

  /// Requests a second over `seconds`, and CPU microseconds for each, of this process and
  /// `helper`.
  func run(_ doorway: Doorway, helper: Int32? = nil, seconds: Double) throws -> (
    rate: Double, cost: Double
  ) {
    func used() -> Double { Clock.processCPU + (helper.map(Subject.cpuSeconds) ?? 0) }
    let (start, cpu) = (Clock.seconds, used())
    let deadline = start + seconds
    var finished = 0
    var underWay = workload.depth
    for slot in 0..<workload.depth { request(slot) }
    if ring.publish() { doorway.kicks[0].signal() }
    while underWay > 0 {
      try doorway.await("a \(workload.name)")
      repeat {
        let isOver = Clock.seconds >= deadline
        while let slot = ring.takeUsed() {
          try check(slot)
          finished += 1
          if isOver { underWay -= 1 } else { request(slot) }
        }
        if ring.publish() { doorway.kicks[0].signal() }
      } while ring.arm()
    }
    return (
      Double(finished) / (Clock.seconds - start), (used() - cpu) / Double(finished) * 1e6
    )
  }

  private func request(_ slot: Int) {
    let block = next()
    let (header, status) = (Self.headers + slot * Self.headerSize, Self.statuses + slot)
    let data = Self.data + slot * workload.blockSize
    memory.put(UInt32(workload.isWrite ? 1 : 0), at: header)
    memory.put(UInt32(0), at: header + 4)
    memory.put(block * UInt64(workload.blockSize / Self.sector), at: header + 8)
    memory.put(UInt8(0xFF), at: status)
    expected[slot] = block
    if workload.isWrite { memory.put(Self.mark(block, workload.blockSize), at: data) }
    ring.add(
      slot: slot,
      [
        .readable(header, Self.headerSize),
        workload.isWrite
          ? .readable(data, workload.blockSize) : .writable(data, workload.blockSize),
        .writable(status, 1),
      ])
  }

  private func check(_ slot: Int) throws {
    let status = memory.get(Self.statuses + slot, UInt8.self)
    guard status == 0 else { throw BenchError("a \(workload.name) failed with status \(status)") }
    let mark = memory.get(Self.data + slot * workload.blockSize, UInt64.self)
    guard mark == Self.mark(expected[slot], workload.blockSize) else {
      throw BenchError("a \(workload.name) of block \(expected[slot]) had other contents")
    }
  }

  private func next() -> UInt64 {
    guard workload.isRandom else {
      defer { nextBlock = (nextBlock + 1) % blocks }
      return nextBlock
    }
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    return random % blocks
  }

  /// What the image has at the start of a block.
  private static func mark(_ block: UInt64, _ blockSize: Int) -> UInt64 {
    ImageMark.at(block * UInt64(blockSize))
  }
}

/// The benchmark's image: each 4 KiB begin with a number that follows from their place.
enum ImageMark {
  static let blockSize = 4096

  static func at(_ offset: UInt64) -> UInt64 { (offset / UInt64(blockSize) + 1) &* 0x1_0000_0001 }

  static func write(_ path: String, size: Int) throws {
    var part = [UInt8](repeating: 0xA5, count: 1 << 20)
    _ = FileManager.default.createFile(atPath: path, contents: nil)
    guard let file = FileHandle(forWritingAtPath: path) else {
      throw BenchError("\(path) cannot be written")
    }
    defer { try? file.close() }
    for start in stride(from: 0, to: size, by: part.count) {
      for block in stride(from: 0, to: part.count, by: blockSize) {
        part.replaceSubrange(
          block..<block + 8, with: LittleEndian.bytes(at(UInt64(start + block))))
      }
      try file.write(contentsOf: part)
    }
  }
}
