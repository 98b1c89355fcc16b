import DeviceModel
import LinuxSystem
import Snapshot

/// One machine's RAM on its way into a snapshot.
///
/// Most is copied while the guest runs, over again where it was written meanwhile. What is left
/// then is copied while the guest stands, if that is little; a guest that writes faster than it
/// is copied has the rest protected from writes, to be copied after the instant. Where memory
/// cannot be protected, the guest is stopped for moments until little is left.
final class MemoryCopying {
  /// A guest that writes faster than memory is copied does not get more turns than these.
  private static let mostTurns = 4
  /// What is protected is not written any more, or slowly, so that these are enough.
  private static let mostProtectingTurns = 8
  private static let piece = 256
  /// One of the moments, and how long the guest runs between two of them, in nanoseconds.
  private static let stop: UInt64 = 20_000_000
  private static let runMilliseconds: Int32 = 2
  private static let mostStops = 512

  private let machine: Machine
  private let board: Board
  private let target: MemoryWriter
  private let progress: (UInt64, UInt64) -> Void
  private let workingSet: SuspendedWorkingSet?
  /// So few pages are copied while the guest stands: some milliseconds.
  private let few: Int
  /// Pages that the file does not have as they are in memory.
  private var pages: DirtyPages
  private var done: UInt64 = 0
  private var behind: WriteBehind?
  /// How often the guest was stopped so far.
  private var stops = 0
  /// Of pages that were copied at the instant, one after the other; and which those are.
  private var copies: [UInt8] = []
  private var copied: DirtyPages

  /// The longest time that the guest was stopped for before the instant.
  private(set) var longestStop: UInt64 = 0
  /// How many pages were copied at the instant, and how many were left for later.
  private(set) var copiedCount = 0
  private(set) var behindCount = 0

  /// - Parameters:
  ///   - few: how many pages may be copied while the guest stands.
  ///   - workingSet: of a machine that is being suspended.
  init(
    _ machine: Machine, _ pages: DirtyPages, to target: MemoryWriter, few: Int,
    workingSet: SuspendedWorkingSet?, progress: @escaping (UInt64, UInt64) -> Void
  ) {
    self.machine = machine
    board = machine.board
    self.pages = pages
    self.target = target
    self.few = few
    self.workingSet = workingSet
    self.progress = progress
    copied = DirtyPages(pageCount: board.memory.ram.bytes.count / DirtyPages.pageSize)
  }

  // MARK: The guest runs

  /// Until few pages are left, which the guest wrote meanwhile, or it writes too fast.
  func copyMost() throws {
    try takeChanges()
    for _ in 0..<Self.mostTurns where pages.count > few {
      let total = done + Self.bytes(pages.count)
      try pages.forEachRun(limit: Self.piece) { (run) throws(any Error) in
        guard machine.status != .ended else { throw Machine.isOver }
        try store(run)
        progress(done, total)
      }
      pages = DirtyPages(pageCount: pages.words.count * 64)
      try takeChanges()
    }
  }

  /// Until few pages are left to be copied while the guest stands, however fast it writes.
  func settle() throws {
    // A machine that is being suspended stands already.
    if workingSet != nil { try copyMost() }
    try takeChanges()
    guard pages.count > few else { return }
    if behind == nil { beginProtecting() }
    guard let behind else { return try copyWithStops() }
    for _ in 0..<Self.mostProtectingTurns {
      guard machine.status != .ended else { throw Machine.isOver }
      let open = behind.unprotected(of: pages)
      guard open.count > few else { return }
      try behind.protect(open)
      try takeChanges()
    }
  }

  private func beginProtecting() {
    guard workingSet == nil, machine.status == .running,
      let behind = try? WriteBehind(board.memory.ram, target)
    else { return }
    self.behind = behind
    board.lock.withLock {
      board.memory.ram.beforeRelease = { range in
        behind.surrender(
          range.lowerBound / DirtyPages.pageSize..<range.upperBound / DirtyPages.pageSize)
      }
    }
  }

  /// The guest runs so little that it writes less than is copied.
  private func copyWithStops() throws {
    while pages.count > few, stops < Self.mostStops {
      var start: UInt64 = 0
      try machine.whileParked(onPark: { start = MonotonicClock.now }) {
        pages.formUnion(try board.takeChanges())
        try storeForAMoment(since: start)
      }
      try letGuestRun(since: start)
    }
  }

  /// vCPUs parked, device lock held.
  private func storeForAMoment(since start: UInt64) throws {
    stops += 1
    var next = 0
    while MonotonicClock.now < start + Self.stop,
      let run = pages.run(from: next, limit: Self.piece)
    {
      try store(run)
      pages.remove(pages: run)
      next = run.upperBound
    }
  }

  /// Between two stops, the first of which began at `start`.
  func letGuestRun(since start: UInt64) throws {
    longestStop = max(longestStop, MonotonicClock.now - start)
    progress(done, done + Self.bytes(pages.count))
    // In the end, for as long as it takes to see what it wrote.
    if stops < Self.mostStops / 2 { _ = try Poller().wait(milliseconds: Self.runMilliseconds) }
    try takeChanges()
  }

  private func takeChanges() throws {
    let written = try board.lock.withLock { try board.takeChanges() }
    workingSet?.note(written: written)
    pages.formUnion(written)
  }

  private func store(_ run: Range<Int>) throws {
    try target.store(bytes(of: run), at: run.lowerBound)
    done += Self.bytes(run.count)
  }

  private static func bytes(_ pages: Int) -> UInt64 { UInt64(pages * DirtyPages.pageSize) }

  private func bytes(of run: Range<Int>) -> UnsafeRawBufferPointer {
    let range = run.lowerBound * DirtyPages.pageSize..<run.upperBound * DirtyPages.pageSize
    // SAFETY: pages are those of RAM, which the board keeps mapped.
    return UnsafeRawBufferPointer(rebasing: board.memory.ram.savedBytes[range])
  }

  // MARK: The guest stands

  /// Room for what few pages are, and as many that were written since, without page faults
  /// later.
  private var room: Int { few * 2 + 64 }

  func prepareInstant() {
    copies = Array(repeating: 0, count: room * DirtyPages.pageSize)
    copies.removeAll(keepingCapacity: true)
  }

  /// What RAM is now will be in the file. vCPUs parked, device lock held.
  ///
  /// - Parameter start: when the guest was stopped.
  /// - Returns: whether it is so; not where too much was left, some of which is stored then. The
  ///   guest is to run for a moment before it is tried again.
  func takeInstant(since start: UInt64) throws -> Bool {
    pages.formUnion(try board.takeChanges())
    if let behind {
      let open = behind.unprotected(of: pages)
      // Where even that is refused, what was protected before stays so.
      if open.count > room { try? behind.protect(open) }
    } else if pages.count > room, stops < Self.mostStops {
      try storeForAMoment(since: start)
      return false
    }
    let left = behind?.take(pages) ?? pages
    copiedCount = left.count
    behindCount = behind?.pendingCount ?? 0
    try left.forEachRun(limit: Self.piece) { (run) throws(any Error) in
      if copies.count / DirtyPages.pageSize + run.count <= room {
        copies.append(contentsOf: bytes(of: run))
        copied.insert(pages: run)
      } else {
        // Nothing else helped: the guest stands longer, rather than the host giving more memory.
        try store(run)
      }
    }
    return true
  }

  // MARK: The guest runs again

  func storeRest() throws {
    let total = done + Self.bytes(behindCount + copied.count)
    try behind?.storeAll { [done, progress] in progress(done + Self.bytes($0), total) }
    end()
    done += Self.bytes(behindCount)
    var place = 0
    // SAFETY: the buffer is used only within the call; it holds the pages one after another.
    try copies.withUnsafeBytes { buffer in
      try copied.forEachRun { (run) throws(any Error) in
        let size = run.count * DirtyPages.pageSize
        try target.store(
          UnsafeRawBufferPointer(rebasing: buffer[place..<place + size]), at: run.lowerBound)
        place += size
      }
    }
    done += Self.bytes(copied.count)
    progress(done, total)
    copies = []
  }

  /// Whatever became of it: nobody is stopped any more. Idempotent; not under the device lock.
  func end() {
    guard let behind else { return }
    board.lock.withLock { board.memory.ram.beforeRelease = nil }
    behind.end()
    self.behind = nil
  }
}
