import Disk
import LinuxSystem
import TestSupport
import Testing

/// What each sector of a disk may be after a crash, given what was written when.
private struct SectorHistory {
  static let size = 512

  /// What was flushed last.
  private var durable: [UInt64]
  /// What was written since.
  private var recent: [[UInt64]]
  private var current: [UInt64]
  /// Discarded since: anything.
  private var isUnknown: Set<Int> = []

  init(_ sectors: [UInt64]) {
    (durable, current) = (sectors, sectors)
    recent = Array(repeating: [], count: sectors.count)
  }

  mutating func write(_ range: Range<Int>, _ stamp: UInt64) {
    for sector in range {
      recent[sector].append(stamp)
      current[sector] = stamp
    }
  }

  mutating func discard(_ range: Range<Int>) { isUnknown.formUnion(range) }

  mutating func flush(_ contents: [UInt64]) {
    (durable, current) = (contents, contents)
    recent = Array(repeating: [], count: contents.count)
    isUnknown = []
  }

  /// The first sector that is what it cannot be.
  func violation(_ sectors: [UInt64]) -> Int? {
    sectors.indices.first { index in
      sectors[index] != durable[index] && !recent[index].contains(sectors[index])
        && !isUnknown.contains(index)
    }
  }
}

/// What each sector has, if it is one stamp all over.
func stamps(_ bytes: [UInt8]) -> [UInt64] {
  bytes.withUnsafeBytes { buffer in
    var stamps: [UInt64] = []
    var offset = 0
    while offset < buffer.count {
      let stamp = buffer.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      var isWhole = true
      var part = 8
      while part < 512 {
        let other = buffer.loadUnaligned(fromByteOffset: offset + part, as: UInt64.self)
        if other != stamp { isWhole = false }
        part += 8
      }
      stamps.append(isWhole ? UInt64(bigEndian: stamp) : .max)
      offset += 512
    }
    return stamps
  }
}

/// One with a stamp all over.
func sector(_ stamp: UInt64) -> [UInt8] {
  let bytes = (0..<8).map { UInt8(truncatingIfNeeded: stamp >> (56 - $0 * 8)) }
  return Array(repeatElement(bytes, count: 64).joined())
}

private final class StampedLayer: ImageLayer {
  let path = "base"
  let byteCount: UInt64
  private let bytes: [UInt8]

  init(sectors: Int) {
    bytes = (0..<sectors).flatMap { sector(0xBA5E_0000 + UInt64($0)) }
    byteCount = UInt64(bytes.count)
  }

  func unlock() {}

  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) {
    var place = Int(offset)
    for buffer in buffers {
      buffer.copyBytes(from: bytes[place..<place + buffer.count])
      place += buffer.count
    }
  }
}

@Suite("qcow2 and power cuts")
struct CrashTests {
  struct Setting: CustomTestStringConvertible {
    var clusterSize: Int
    var version: UInt32 = 3
    var refcountBits = 16
    var isLazy = false
    var baseSectors: Int?
    var snapshot = false

    /// Of an image with so many sectors.
    func options(sectors: Int) -> Qcow2Options {
      Qcow2Options(
        byteCount: UInt64(sectors * 512), clusterSize: clusterSize, version: version,
        refcountBits: refcountBits, hasLazyRefcounts: isLazy)
    }

    var testDescription: String {
      "clusters of \(clusterSize), version \(version), \(refcountBits) bits"
        + (isLazy ? ", lazy" : "") + (baseSectors.map { ", base of \($0) sectors" } ?? "")
    }
  }

  static let settings = [
    Setting(clusterSize: 512), Setting(clusterSize: 512, refcountBits: 64),
    Setting(clusterSize: 512, version: 2, baseSectors: 150),
    Setting(clusterSize: 512, isLazy: true), Setting(clusterSize: 1024, refcountBits: 1),
    Setting(clusterSize: 4096, baseSectors: 500),
    Setting(clusterSize: 4096, isLazy: true, baseSectors: 100),
    Setting(clusterSize: 65536, baseSectors: 400),
  ]

  private static let sectors = 320

  @Test(
    "wherever power goes, the image opens clean and has all that was flushed",
    arguments: settings, 0..<3)
  func cuts(setting: Setting, seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed + 11)
    let base = setting.baseSectors.map { StampedLayer(sectors: $0) }
    let storage = RecordingStorage()
    try Qcow2Image.format(storage, setting.options(sectors: Self.sectors), path: "image")
    storage.restart()
    let start = storage.contents
    let events = try record(
      storage, base, cacheBytes: seed == 0 ? nil : 0, using: &generator)
    let log = storage.log
    #expect(log.count > 50)

    var cut = PowerCut(start)
    let initial = try Qcow2Image(
      path: "image", storage: RecordingStorage(start), isReadOnly: true, backing: base)
    var history = SectorHistory(stamps(try initial.read(Self.sectors * 512, at: 0)))
    var next = events[...]
    var isAfterBarrier = true
    for position in 0...log.count {
      while let event = next.first, event.position <= position {
        event.apply(&history)
        next.removeFirst()
      }
      // Without anything pending, the three are the same.
      for survival in isAfterBarrier ? [PowerCut.Survival.nothing] : [.everything, .some] {
        let contents = cut.contents(survival, using: &generator)
        guard try survives(contents, base, history, "after \(position) of \(log.count)") else {
          return
        }
      }
      guard position < log.count else { break }
      cut.advance(log[position])
      if case .barrier = log[position] { isAfterBarrier = true } else { isAfterBarrier = false }
    }
  }

  private struct Event {
    /// Of the log, when it began; when it ended, for a flush.
    let position: Int
    let apply: (inout SectorHistory) -> Void
  }

  /// Makes requests, and notes when.
  private func record(
    _ storage: RecordingStorage, _ base: StampedLayer?, cacheBytes: Int?,
    using generator: inout SeededGenerator
  ) throws -> [Event] {
    // With little memory for tables, they come and go in between.
    let image = try Qcow2Image(
      path: "image", storage: storage, isReadOnly: false, backing: base, cacheBytes: cacheBytes)
    var events: [Event] = []
    for number in 1...60 {
      let position = storage.position
      let first = Int.random(in: 0..<Self.sectors, using: &generator)
      let count = min(Self.sectors - first, Int.random(in: 1...40, using: &generator))
      let range = first..<first + count
      let (offset, bytes) = (UInt64(first * 512), UInt64(count * 512))
      switch Int.random(in: 0..<12, using: &generator) {
      case 0...5:
        let stamp = UInt64(number) << 32
        events.append(Event(position: position) { $0.write(range, stamp) })
        try image.write(Array((0..<count).map { _ in sector(stamp) }.joined()), at: offset)
      case 6:
        events.append(Event(position: position) { $0.discard(range) })
        try image.discard(offset: offset, count: bytes)
      case 7, 8:
        let mayDiscard = Bool.random(using: &generator)
        events.append(Event(position: position) { $0.write(range, 0) })
        try image.writeZeroes(offset: offset, count: bytes, mayDiscard: mayDiscard)
      default:
        try image.flush()
        let contents = stamps(try image.read(Self.sectors * 512, at: 0))
        events.append(Event(position: storage.position) { $0.flush(contents) })
      }
    }
    try image.close()
    return events
  }

  private func survives(
    _ contents: [UInt8], _ base: StampedLayer?, _ history: SectorHistory, _ when: String
  ) throws -> Bool {
    let image = try Qcow2Image(
      path: "image", storage: RecordingStorage(contents), isReadOnly: false, backing: base)
    let check = try image.check()
    let violation = history.violation(stamps(try image.read(Self.sectors * 512, at: 0)))
    #expect(check.errors == 0, "\(when): \(check.problems)")
    #expect(violation == nil, "\(when): sector \(violation ?? 0)")
    return check.errors == 0 && violation == nil
  }

  @Test("an image is based on what it was or on what it is to be, wherever power goes")
  func rebasing() throws {
    var generator = SeededGenerator(seed: 5)
    for clusterSize in [512, 4096, 65536] {
      let storage = RecordingStorage()
      var options = Qcow2Options(byteCount: 1 << 20, clusterSize: clusterSize)
      let longest = clusterSize == 512 ? 90 : 1000
      options.backing = .init("old" + String(repeating: "x", count: longest), .raw)
      try Qcow2Image.format(storage, options, path: "image")
      for (name, format) in [
        ("new", ImageFormat.qcow2), (String(repeating: "y", count: longest), .raw), ("z", .raw),
      ] {
        storage.restart()
        let start = storage.contents
        let image = try Qcow2Image(path: "image", storage: storage, isReadOnly: false)
        let before = image.header
        try image.setBacking(.init(name, format))
        let after = image.header
        var cut = PowerCut(start)
        for operation in storage.log {
          for survival in [PowerCut.Survival.everything, .nothing, .some, .some, .some] {
            let contents = cut.contents(survival, using: &generator)
            let header = try Qcow2Header(parsing: Array(contents.prefix(clusterSize)))
            let isOld =
              header.backingName == before.backingName
              && header.backingFormat == before.backingFormat
            let isNew =
              header.backingName == after.backingName && header.backingFormat == format.rawValue
            #expect(isOld || isNew)
          }
          cut.advance(operation)
        }
        #expect(
          try Qcow2Header(parsing: Array(storage.contents.prefix(clusterSize))).backingName
            == Array(name.utf8))
      }
    }
  }

  @Test("a disk that fails in between is told, and nothing is damaged", arguments: settings)
  func failures(setting: Setting) throws {
    var generator = SeededGenerator(seed: 77)
    let base = setting.baseSectors.map { StampedLayer(sectors: $0) }
    for budget in stride(from: 0, to: 60, by: 3) {
      let storage = RecordingStorage()
      try Qcow2Image.format(storage, setting.options(sectors: Self.sectors), path: "image")
      let image = try Qcow2Image(
        path: "image", storage: storage, isReadOnly: false, backing: base)
      storage.fail(after: budget)
      var wasTold = false
      for number in 1...40 {
        let first = Int.random(in: 0..<Self.sectors - 8, using: &generator)
        do {
          let bytes = Array((0..<8).map { _ in sector(UInt64(number)) }.joined())
          try image.write(bytes, at: UInt64(first * 512))
          if number % 4 == 0 { try image.flush() }
        } catch {
          wasTold = true
          if number > 20 { storage.fail(after: nil) }
        }
      }
      #expect(wasTold || budget > 20)
      storage.fail(after: nil)
      let contents = try image.read(Self.sectors * 512, at: 0)
      try image.close()
      let again = try Qcow2Image(
        path: "image", storage: storage, isReadOnly: true, backing: base)
      #expect(try again.check().errors == 0)
      #expect(try again.read(Self.sectors * 512, at: 0) == contents)
    }
  }
}
