import DeviceModel
import LinuxSystem
import Snapshot

/// Pages of RAM that go into a snapshot after the saved instant, while the guest runs on: they
/// are protected from writes, and whoever writes to one is stopped until it was copied.
///
/// `protect`, as often as it takes, while the guest runs: what is written until the instant is
/// not protected any more. Then `take` at the instant, and `storeAll`; `end` in any case.
///
/// A thread lets stopped writers go on. These may be anybody: vCPUs, devices with the device
/// lock held, system calls of either. That thread takes no lock but this object's, under which
/// nobody writes to RAM or waits.
final class WriteBehind: Sendable {
  /// For one stopped writer so many pages around its own are copied: others will follow.
  private static let window = 16
  /// Copies, each of a window, that wait to be stored.
  private static let slots = 256
  /// Pages that are stored together, and copied while the lock is held.
  private static let piece = 64
  /// Runs of pages that are no further apart are protected together, as that costs less.
  private static let largestGap = 8
  private static let protectedAtOnce = 1024

  private struct State {
    /// Pages that are protected.
    var kept: DirtyPages
    /// Of these, after the instant, the ones that were not copied yet.
    var pending: DirtyPages
    /// Where those begin.
    var next = 0
    var copies: [(pages: Range<Int>, slot: Int)] = []
    var free = Array(0..<WriteBehind.slots)
    /// Copies that are being stored by others than `storeAll`.
    var storing = 0
    /// Pages that are stored or have a copy.
    var done = 0
    var failure: (any Error)?

    init(pageCount: Int) {
      kept = DirtyPages(pageCount: pageCount)
      pending = kept
    }
  }

  private let protection: WriteProtection
  private let source: MemoryMapping
  private let target: MemoryWriter
  /// One slot after the other, then a window for the thread, and a piece for `storeAll`.
  private let buffer: MemoryMapping
  private let state: Guarded<State>
  private let poller: Poller
  private let ending: EventDescriptor
  private let thread = Guarded<Thread?>(nil)

  /// - Throws: where the kernel does not protect this memory for this process.
  init(_ ram: GuestRAM, _ target: MemoryWriter) throws(SystemError) {
    protection = try ram.makeWriteProtection()
    source = ram.mapping
    self.target = target
    let size = ((Self.slots + 1) * Self.window + Self.piece) * DirtyPages.pageSize
    buffer = try MemoryMapping(anonymous: size)
    // Only so that it takes no time later.
    try? buffer.populate([0..<size], writable: true)
    state = Guarded(State(pageCount: ram.bytes.count / DirtyPages.pageSize))
    poller = try Poller()
    ending = try EventDescriptor()
    try poller.add(protection.descriptor, token: 0)
    try poller.add(ending.descriptor, token: 1)
    let answering = try Thread(name: "write-behind") { [self] in answer() }
    thread.change { $0 = answering }
  }

  // MARK: Until the instant

  /// Protects `pages`, and some between them.
  func protect(_ pages: DirtyPages) throws(SystemError) {
    var span: Range<Int>?
    try pages.forEachRun { (run) throws(SystemError) in
      if let last = span, run.lowerBound - last.upperBound <= Self.largestGap {
        span = last.lowerBound..<run.upperBound
      } else {
        if let span { try protect(span) }
        span = run
      }
    }
    if let span { try protect(span) }
  }

  private func protect(_ pages: Range<Int>) throws(SystemError) {
    for first in stride(from: pages.lowerBound, to: pages.upperBound, by: Self.protectedAtOnce) {
      let part = first..<min(first + Self.protectedAtOnce, pages.upperBound)
      try state.withLock { (state) throws(SystemError) in
        try protection.protect(part)
        state.kept.insert(pages: part)
      }
    }
  }

  /// Those of `pages` that can be written without anybody being stopped.
  func unprotected(of pages: DirtyPages) -> DirtyPages {
    var pages = pages
    state.withLock { pages.subtract($0.kept) }
    return pages
  }

  /// The instant: has those of `pages` stored that are protected, as they are now. Once; vCPUs
  /// parked, device lock held.
  ///
  /// - Returns: the others.
  func take(_ pages: DirtyPages) -> DirtyPages {
    state.withLock { state in
      state.pending = pages
      state.pending.formIntersection(state.kept)
    }
    return unprotected(of: pages)
  }

  // MARK: After the instant

  /// Pages that wait to be copied.
  var pendingCount: Int { state.withLock { $0.pending.count } }

  /// Blocks until all are stored.
  ///
  /// - Parameter progress: told how many are.
  func storeAll(progress: (Int) -> Void) throws {
    while let (pages, slot) = nextCopy() {
      store(pages, at: place(of: slot))
      let done = state.withLock { state in
        if slot < Self.slots { state.free.append(slot) }
        return state.done
      }
      progress(done)
    }
    let failure = state.wait(until: { $0.storing == 0 }) { $0.failure }
    if let failure { throw failure }
  }

  /// A copy that was made for a writer, or the next pages, which can be written then.
  private func nextCopy() -> (pages: Range<Int>, slot: Int)? {
    state.withLock { state in
      if let copy = state.copies.popLast() { return copy }
      guard let run = state.pending.run(from: state.next, limit: Self.piece) else { return nil }
      state.next = run.upperBound
      let slot = Self.slots + 1
      letGo(of: run, copied: place(of: slot), &state)
      return (run, slot)
    }
  }

  private func place(of slot: Int) -> Int { slot * Self.window * DirtyPages.pageSize }

  /// Copies pages that are pending, and has them written again. Under the lock.
  private func letGo(of pages: Range<Int>, copied place: Int, _ state: inout State) {
    let size = pages.count * DirtyPages.pageSize
    let start = pages.lowerBound * DirtyPages.pageSize
    // SAFETY: pending pages are those of RAM; places have room for as many as a slot is for.
    UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[place..<place + size])
      .copyMemory(from: UnsafeRawBufferPointer(rebasing: source.bytes[start..<start + size]))
    allow(pages, &state)
    state.done += pages.count
  }

  private func allow(_ pages: Range<Int>, _ state: inout State) {
    state.kept.remove(pages: pages)
    state.pending.remove(pages: pages)
    protection.allow(pages)
  }

  private func store(_ pages: Range<Int>, at place: Int) {
    // SAFETY: what was copied there lies within the buffer.
    let copy = UnsafeRawBufferPointer(
      rebasing: buffer.bytes[place..<place + pages.count * DirtyPages.pageSize])
    store(pages, copy)
  }

  private func store(_ pages: Range<Int>, _ copy: UnsafeRawBufferPointer) {
    do {
      try target.store(copy, at: pages.lowerBound)
    } catch {
      // Nobody waits for a snapshot that comes to nothing.
      state.change { state in
        state.failure = state.failure ?? error
        state.pending = DirtyPages(pageCount: state.pending.words.count * 64)
      }
    }
  }

  /// Somebody is about to take pages away, whose contents are lost then. Device lock held.
  func surrender(_ pages: Range<Int>) {
    var copy = [UInt8](repeating: 0, count: Self.window * DirtyPages.pageSize)
    while let run = takePending(in: pages, into: &copy) {
      // SAFETY: the buffer is used only within the call, and holds as many pages.
      copy.withUnsafeBytes {
        store(run, UnsafeRawBufferPointer(rebasing: $0[..<(run.count * DirtyPages.pageSize)]))
      }
      state.change { $0.storing -= 1 }
    }
    state.withLock { allow(pages, &$0) }
  }

  private func takePending(in pages: Range<Int>, into copy: inout [UInt8]) -> Range<Int>? {
    state.withLock { state in
      guard let found = state.pending.run(from: pages.lowerBound, limit: Self.window),
        found.overlaps(pages)
      else { return nil }
      let run = found.clamped(to: pages)
      let start = run.lowerBound * DirtyPages.pageSize
      // SAFETY: pending pages are those of RAM, and the copy has room for a window.
      copy.withUnsafeMutableBytes {
        $0.copyMemory(
          from: UnsafeRawBufferPointer(
            rebasing: source.bytes[start..<start + run.count * DirtyPages.pageSize]))
      }
      allow(run, &state)
      state.done += run.count
      state.storing += 1
      return run
    }
  }

  /// Has the memory be as any other again. Idempotent.
  func end() {
    guard let thread = thread.change({ $0.take() }) else { return }
    protection.end()
    ending.signal()
    thread.join()
  }

  // MARK: The thread

  private func answer() {
    while !ending.drain() {
      let stopped = protection.stoppedAt()
      if stopped.isEmpty { _ = try? poller.wait() }
      for page in stopped { letWriterGoOn(at: page) }
    }
  }

  private func letWriterGoOn(at page: Int) {
    let reserve = Self.slots
    let mustStore: Range<Int>? = state.withLock { state in
      guard state.pending.contains(page: page) else {
        allow(page..<page + 1, &state)
        return nil
      }
      let run = Self.run(around: page, in: state.pending)
      let slot = state.free.popLast()
      letGo(of: run, copied: place(of: slot ?? reserve), &state)
      if let slot {
        state.copies.append((run, slot))
        return nil
      }
      state.storing += 1
      return run
    }
    // Whoever empties the slots may wait for the writer that is stopped next.
    guard let mustStore else { return }
    store(mustStore, at: place(of: reserve))
    state.change { $0.storing -= 1 }
  }

  private static func run(around page: Int, in pages: DirtyPages) -> Range<Int> {
    let first = page / window * window
    var (start, end) = (page, page + 1)
    while start > first, pages.contains(page: start - 1) { start -= 1 }
    while end < first + window, pages.contains(page: end) { end += 1 }
    return start..<end
  }
}
