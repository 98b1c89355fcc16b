import DeviceModel
import LinuxSystem
import Snapshot
import TestSupport
import Testing

/// Keeps what is written to a snapshot in the order of its coming.
private final class RecordingOutput: SnapshotOutput {
  enum Operation {
    case write(offset: Int, [UInt8])
    case barrier
    case place
  }

  private let operations = Guarded<[Operation]>([])

  var log: [Operation] { operations.withLock { $0 } }

  func write(_ bytes: UnsafeRawBufferPointer, offset: UInt64) {
    operations.change { $0.append(.write(offset: Int(offset), Array(bytes))) }
  }

  func synchronize() { operations.change { $0.append(.barrier) } }
  func place() { operations.change { $0.append(.place) } }
  func abandon() {}
}

/// What is left of what was written when power goes: everything before the last barrier, and
/// any sectors of what came after it.
private struct PowerCut {
  enum Survival: CaseIterable {
    case nothing, everything, some, others
  }

  private var durable: [UInt8] = []
  private var pending: [(offset: Int, bytes: [UInt8])] = []

  mutating func advance(_ operation: RecordingOutput.Operation) {
    switch operation {
    case .write(let offset, let bytes): pending.append((offset, bytes))
    case .barrier:
      for (offset, bytes) in pending { durable.put(bytes[...], at: offset) }
      pending = []
    case .place: break
    }
  }

  func contents(_ survival: Survival, using generator: inout SeededGenerator) -> [UInt8] {
    var contents = durable
    for (offset, bytes) in pending where survival != .nothing {
      for start in stride(from: 0, to: bytes.count, by: 512)
      where survival == .everything || Bool.random(using: &generator) {
        contents.put(bytes[start..<min(start + 512, bytes.count)], at: offset + start)
      }
    }
    return contents
  }
}

extension [UInt8] {
  fileprivate mutating func put(_ bytes: ArraySlice<UInt8>, at offset: Int) {
    let end = offset + bytes.count
    if end > count { append(contentsOf: repeatElement(0, count: end - count)) }
    replaceSubrange(offset..<end, with: bytes)
  }
}

@Suite("Snapshots and power cuts") struct SnapshotCrashTests {
  private static let page = DirtyPages.pageSize
  private static let identifier = [UInt8](repeating: 2, count: 16)
  private static let base = [UInt8](repeating: 1, count: 16)
  private let files: TemporaryDirectory

  init() throws { files = try TemporaryDirectory() }

  /// Writes one as a machine does: pages, some of them again, and then all else.
  private func write(_ output: any SnapshotOutput, isDifferential: Bool, seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let writer = SnapshotWriter(
      path: "snapshot", identifier: Self.identifier, base: isDifferential ? Self.base : nil,
      created: 1, output: output)
    let ram = try writer.addMemory("ram", size: 40 * Self.page)
    for _ in 0..<12 {
      let first = Int.random(in: 0..<36, using: &generator)
      let count = Int.random(in: 1...4, using: &generator)
      let bytes = (0..<count).flatMap { _ in
        let value = Bool.random(using: &generator) ? generator.next() : 0
        return [UInt8](repeating: UInt8(truncatingIfNeeded: value), count: Self.page)
      }
      // SAFETY: the buffer is used only within the call.
      try bytes.withUnsafeBytes { try ram.store($0, at: first) }
    }
    try writer.add("devices", [UInt8](repeating: 7, count: 9000))
    try writer.add("machine", [1, 2, 3])
    try writer.finish()
  }

  /// All that one says; fails as whoever opens it does.
  private func read(_ bytes: [UInt8]) throws -> [[UInt8]] {
    let path = try files.write(bytes, to: "candidate")
    let file = try SnapshotFile(path: path)
    try file.verify()
    var parts = [file.identifier]
    for name in file.sectionNames { parts.append(try #require(file.section(name))) }
    let ram = try #require(file.memory("ram"))
    parts.append(ram.stored.words.flatMap { word in (0..<8).map { UInt8(word >> ($0 * 8) & 255) } })
    parts.append(ram.zero.words.flatMap { word in (0..<8).map { UInt8(word >> ($0 * 8) & 255) } })
    return parts
  }

  @Test(
    "wherever power goes, the old one is there or the new one, whole",
    arguments: [false, true], 0..<3 as Range<UInt64>)
  func cuts(isDifferential: Bool, seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed + 40)
    let output = RecordingOutput()
    try write(output, isDifferential: isDifferential, seed: seed)
    let log = output.log
    var all = PowerCut()
    for operation in log { all.advance(operation) }
    let whole = try read(all.contents(.nothing, using: &generator))

    var cut = PowerCut()
    var (isPlaced, unfinished) = (false, 0)
    for (position, operation) in log.enumerated() {
      if case .place = operation { isPlaced = true }
      for survival in PowerCut.Survival.allCases {
        let contents = cut.contents(survival, using: &generator)
        let when = "\(survival) before \(position) of \(log.count)"
        do {
          #expect(try read(contents) == whole, "\(when)")
        } catch let error as SnapshotError {
          // It is beside the old one yet, and nobody takes it for one.
          #expect(!isPlaced && error.kind == .notASnapshot, "\(when): \(error)")
          unfinished += 1
        }
      }
      cut.advance(operation)
    }
    #expect(isPlaced && unfinished > 20)
  }

  @Test("one that is not finished is removed, and put nowhere")
  func abandoned() throws {
    let path = files.path("snapshot")
    for fails in [true, false] {
      struct Failure: Error {}
      do {
        let writer = try SnapshotWriter(path: path, identifier: Self.identifier, created: 1)
        try writer.add("devices", [1])
        if fails { throw Failure() }
        try writer.finish()
      } catch is Failure {}
      #expect(Files.exists(path) == !fails)
      #expect(!Files.exists(path + ".new"))
    }
  }
}
