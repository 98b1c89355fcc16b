import DeviceModel
import LinuxSystem
import Synchronization

/// A picture that stands still, watched at no cost: the guest's next write to it, or
/// its next access to the adapter, makes one of `descriptors` readable.
///
/// Belongs to the display thread. While it rests, a writer may be stopped with the
/// device lock held, so the thread must not take that lock before `end`.
final class RestingScreen {
  let descriptors: [FileDescriptor]
  /// Any thread.
  var isResting: Bool { resting.load(ordering: .relaxed) }

  private let board: Board
  private let adapter: any DisplayAdapter
  private let writes: WriteWatch
  private let accesses: EventDescriptor
  private let resting = Atomic(false)
  private let lastAccess = Guarded<DisplayAccess?>(nil)

  /// - Throws: where the kernel does not watch memory for this process; then looking
  ///   again and again is all there is.
  init(_ board: Board, _ adapter: any DisplayAdapter, _ memory: MappedMemory) throws(SystemError) {
    self.board = board
    self.adapter = adapter
    writes = try memory.makeWriteWatch()
    accesses = try EventDescriptor()
    descriptors = [writes.descriptor, accesses.descriptor]
  }

  /// Watches from now on; what changed earlier is the caller's to look for once more.
  /// Device lock held. Nothing happens for pictures that are painted by the adapter,
  /// which change with time, too.
  func begin(_ scanout: Scanout) {
    guard !isResting, scanout.source == .videoMemory else { return }
    let end = scanout.offset + scanout.stride * scanout.height
    guard (try? board.coalesceWindowWrites(false)) != nil,
      (try? writes.arm(scanout.offset..<end)) != nil
    else { return }
    resting.store(true, ordering: .relaxed)
    adapter.onNextAccess = { [lastAccess, accesses] access in
      lastAccess.withLock { $0 = access }
      accesses.signal()
    }
  }

  /// Stops watching; returns whether the guest did something.
  func end() -> Bool {
    guard isResting else { return false }
    resting.store(false, ordering: .relaxed)
    let hasWritten = writes.disarm()
    accesses.drain()
    let access = lastAccess.withLock { access in
      defer { access = nil }
      return access
    }
    board.lock.withLock {
      adapter.onNextAccess = nil
      // Banked drawing comes in many small writes.
      if access == .window { try? board.coalesceWindowWrites(true) }
    }
    return hasWritten || access != nil
  }
}
