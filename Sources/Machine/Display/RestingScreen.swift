import DeviceModel
import LinuxSystem
import Synchronization

/// A picture that stands still, watched at no cost: the guest's next write to it, or
/// its next access to the adapter, makes one of `descriptors` readable.
///
/// Belongs to the display thread. While it rests, a writer may be stopped with the
/// device lock held, so the thread must not take that lock before `end`. Writes to the
/// legacy window do not pile up in KVM meanwhile, where nobody would see them.
final class RestingScreen {
  let descriptors: [FileDescriptor]
  /// Any thread.
  var isResting: Bool { resting.load(ordering: .relaxed) }

  private let board: Board
  private let adapter: any DisplayAdapter
  private let writes: WriteWatch
  private let accesses: EventDescriptor
  private let resting = Atomic(false)

  /// - Throws: where the kernel does not watch memory for this process; then looking
  ///   again and again is all there is.
  init(_ board: Board, _ adapter: any DisplayAdapter, _ memory: MappedMemory) throws(SystemError) {
    self.board = board
    self.adapter = adapter
    writes = try memory.makeWriteWatch()
    accesses = try EventDescriptor()
    descriptors = [writes.descriptor, accesses.descriptor]
  }

  /// Watches a picture from now on; `false` for those that are painted by the adapter,
  /// which change with time, too. A card that keeps its pictures tells of each change by
  /// itself. Device lock held.
  ///
  /// What changed earlier is the caller's to look for once more, in the dirty log only:
  /// drawing here would stop the one thread that lets writers go on.
  func begin(_ scanout: Scanout) -> Bool {
    guard !isResting else { return false }
    switch scanout.source {
    case .rendered: return false
    case .videoMemory: guard watch(scanout) else { return false }
    case .graphicsMemory: break
    }
    resting.store(true, ordering: .relaxed)
    adapter.onNextAccess = { [accesses] in accesses.signal() }
    return true
  }

  private func watch(_ scanout: Scanout) -> Bool {
    do {
      try board.coalesceDisplayWrites(false)
      // What had piled up is drawn while nothing is protected.
      board.drainCoalescedWrites()
      try writes.arm(scanout.offset..<scanout.offset + scanout.stride * scanout.height)
    } catch {
      try? board.coalesceDisplayWrites(true)
      return false
    }
    return true
  }

  /// Stops watching; returns whether the guest did something.
  func end() -> Bool {
    guard isResting else { return false }
    // First of all: whoever holds the device lock may be a stopped writer.
    let hasWritten = writes.disarm()
    return board.lock.withLock { finish() } || hasWritten
  }

  /// Takes `begin` back, since the picture changed while it began. Device lock held.
  func abandon() {
    writes.disarm()
    _ = finish()
  }

  private func finish() -> Bool {
    adapter.onNextAccess = nil
    resting.store(false, ordering: .relaxed)
    // Only now that nobody writes is stopped: KVM waits for vCPUs here.
    try? board.coalesceDisplayWrites(true)
    return accesses.drain()
  }
}
