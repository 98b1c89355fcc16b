import DeviceModel
import LinuxSystem
import Snapshot

extension Machine {
  /// RAM, as snapshots call it.
  public static let memoryName = GuestRAM.sectionName

  /// The pages of the snapshot that the machine touched since it went on from that: what it
  /// needs first the next time. `nil` for a machine that came from no snapshot.
  ///
  /// Once it was saved, all pages count as touched.
  public func touchedPages() throws -> DirtyPages? {
    // The mapping itself never changes.
    try board.memory.ram.touchedOfSnapshot()
  }
}

/// What a guest needs of its memory while it is being suspended, to be read first when it goes
/// on.
///
/// With RAM of its own, it is what the guest touches until it stands. The pages of a snapshot
/// cannot be told apart so; there it is what was needed the last time, and what is written.
final class SuspendedWorkingSet {
  private let board: Board
  private var pages: DirtyPages

  init(_ board: Board, former: DirtyPages?) throws {
    self.board = board
    let none = DirtyPages(pageCount: board.memory.ram.bytes.count / DirtyPages.pageSize)
    pages = try former ?? board.memory.ram.touchedOfSnapshot() ?? none
    try board.memory.ram.watchTouched()
  }

  /// The guest wrote these.
  func note(written: DirtyPages) { pages.formUnion(written) }

  /// The guest stands.
  func end() throws(SystemError) {
    if let touched = try board.memory.ram.touchedOfOwn(written: pages) { pages.formUnion(touched) }
  }

  /// The snapshot is whole.
  func store(for request: SnapshotRequest) throws(SystemError) {
    try WorkingSet(
      of: request.identifier.bytes, size: board.memory.ram.bytes.count, pages: pages
    ).store(for: request.path)
  }
}
