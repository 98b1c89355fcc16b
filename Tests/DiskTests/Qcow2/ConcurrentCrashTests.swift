import Disk
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// What several threads asked of an image, and when: each writes sectors that are its own.
private final class Requests: Sendable {
  struct Write: Sendable {
    let sectors: Range<Int>
    let stamp: UInt64
    /// Of the log, when it began.
    let position: Int
    /// When it was over, in the order of all beginnings and ends.
    let end: Int
  }

  struct Flush: Sendable {
    let begin: Int
    /// Of the log, when it was over.
    let position: Int
  }

  private struct State {
    var clock = 0
    var underWay = 0
    var most = 0
    var writes: [Write] = []
    var flushes: [Flush] = []
  }

  private let state = Guarded(State())

  var writes: [Write] { state.withLock { $0.writes } }
  var flushes: [Flush] { state.withLock { $0.flushes } }
  /// How many were under way at once.
  var most: Int { state.withLock { $0.most } }

  private func begin() -> Int {
    state.withLock { state in
      state.clock += 1
      state.underWay += 1
      state.most = max(state.most, state.underWay)
      return state.clock
    }
  }

  private func end(_ note: (inout State) -> Void) {
    state.withLock { state in
      state.clock += 1
      state.underWay -= 1
      note(&state)
    }
  }

  func write(
    _ sectors: Range<Int>, _ stamp: UInt64, _ storage: RecordingStorage, _ body: () throws -> Void
  ) rethrows {
    _ = begin()
    let position = storage.position
    try body()
    end {
      $0.writes.append(
        Write(sectors: sectors, stamp: stamp, position: position, end: $0.clock))
    }
  }

  func flush(_ storage: RecordingStorage, _ body: () throws -> Void) rethrows {
    let begin = begin()
    try body()
    let position = storage.position
    end { $0.flushes.append(Flush(begin: begin, position: position)) }
  }
}

/// Several requests are under way at once, and allocate the same clusters and tables.
@Suite("qcow2, power cuts, and requests side by side")
struct ConcurrentCrashTests {
  private static let sectors = 288
  private static let threads = 4
  /// So many sectors together are one thread's: less than most clusters.
  private static let piece = 3
  private static let requests = 40

  static let settings = [
    CrashTests.Setting(clusterSize: 512), CrashTests.Setting(clusterSize: 4096),
    CrashTests.Setting(clusterSize: 4096, isLazy: true),
    CrashTests.Setting(clusterSize: 4096, version: 2), CrashTests.Setting(clusterSize: 65536),
  ]

  @Test(
    "wherever power goes, the image opens clean and has all that was flushed",
    arguments: settings, 0..<3 as Range<UInt64>)
  func cuts(setting: CrashTests.Setting, seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed + 300)
    let turns = Guarded(SeededGenerator(seed: seed + 400))
    let storage = RecordingStorage(pause: {
      // Others' turn, often in the midst of something.
      if turns.change({ Bool.random(using: &$0) }) { sched_yield() }
    })
    try Qcow2Image.format(storage, setting.options(sectors: Self.sectors), path: "image")
    storage.restart()
    let start = storage.contents
    let requests = Requests()
    try work(storage, requests, seed)
    let log = storage.log
    #expect(requests.most > 1, "one after the other")
    #expect(requests.writes.count > 60 && requests.flushes.count > 5)

    var cut = PowerCut(start)
    let step = max(1, log.count / 150)
    for position in 0...log.count {
      if position % step == Int(seed) % step || position == log.count {
        for survival in [PowerCut.Survival.nothing, .everything, .some] {
          let contents = cut.contents(survival, using: &generator)
          guard try survives(contents, requests, position, "\(position) of \(log.count)") else {
            return
          }
        }
      }
      if position < log.count { cut.advance(log[position]) }
    }
  }

  /// Has threads do something with the image, each in pieces of its own.
  private func work(_ storage: RecordingStorage, _ requests: Requests, _ seed: UInt64) throws {
    let image = try Qcow2Image(path: "image", storage: storage, isReadOnly: false, cacheBytes: 0)
    let failures = Guarded<[String]>([])
    let threads = try (0..<Self.threads).map { number in
      try Thread(name: "requests") {
        var generator = SeededGenerator(seed: seed * 10 + UInt64(number))
        do {
          for count in 1...Self.requests {
            let stamp = UInt64(number + 1) << 32 | UInt64(count)
            try request(of: number, stamp, image, storage, requests, using: &generator)
          }
        } catch {
          failures.change { $0.append("\(error)") }
        }
      }
    }
    for thread in threads { thread.join() }
    #expect(failures.withLock { $0 } == [])
    try image.close()
  }

  private func request(
    of thread: Int, _ stamp: UInt64, _ image: Qcow2Image, _ storage: RecordingStorage,
    _ requests: Requests, using generator: inout SeededGenerator
  ) throws {
    let pieces = Self.sectors / Self.piece / Self.threads
    let piece = Int.random(in: 0..<pieces, using: &generator) * Self.threads + thread
    let first = piece * Self.piece + Int.random(in: 0..<Self.piece, using: &generator)
    let range = first..<Int.random(in: first + 1...(piece + 1) * Self.piece, using: &generator)
    let offset = UInt64(range.lowerBound * 512)
    switch Int.random(in: 0..<8, using: &generator) {
    case 0: try requests.flush(storage) { try image.flush() }
    case 1:
      try requests.write(range, 0, storage) {
        try image.writeZeroes(
          offset: offset, count: UInt64(range.count * 512), mayDiscard: stamp.isMultiple(of: 2))
      }
    default:
      try requests.write(range, stamp, storage) {
        try image.write(Array(range.map { _ in sector(stamp) }.joined()), at: offset)
      }
    }
  }

  private func survives(
    _ contents: [UInt8], _ requests: Requests, _ position: Int, _ when: String
  ) throws -> Bool {
    let image = try Qcow2Image(
      path: "image", storage: RecordingStorage(contents), isReadOnly: false)
    let check = try image.check()
    #expect(check.errors == 0, "\(when): \(check.problems)")
    // Writes that were over before this began are there.
    let flushed = requests.flushes.filter { $0.position <= position }.map(\.begin).max() ?? 0
    var possible = [Set<UInt64>](repeating: [0], count: Self.sectors)
    // Each sector's in their order.
    for write in requests.writes.sorted(by: { $0.end < $1.end }) where write.position <= position {
      for sector in write.sectors {
        if write.end < flushed { possible[sector] = [] }
        possible[sector].insert(write.stamp)
      }
    }
    let found = stamps(try image.read(Self.sectors * 512, at: 0))
    let wrong = found.indices.first { !possible[$0].contains(found[$0]) }
    #expect(wrong == nil, "\(when): sector \(wrong ?? 0)")
    return check.errors == 0 && wrong == nil
  }
}
