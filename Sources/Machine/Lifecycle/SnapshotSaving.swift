import DeviceModel
import Devices
import LinuxSystem
import Snapshot

/// What is to be saved, and where.
public struct SnapshotRequest: Sendable {
  public var path: String
  /// Of the new snapshot.
  public var identifier: MachineUUID
  /// Save only what changed since this snapshot of the machine, where that is known.
  public var base: MachineUUID?
  /// Seconds since 1970.
  public var created: UInt64
  /// Disks that go over to new overlays at the saved instant.
  public var overlays: [OverlayRequest]
  /// Whether a user's session ran in the machine, so that it is no template.
  public var hasSession: Bool
  /// How many pages of RAM are copied while the guest stands, rather than before or afterwards:
  /// so many take some milliseconds.
  package var pagesInPause = 4096

  public init(
    path: String, identifier: MachineUUID, base: MachineUUID? = nil, created: UInt64,
    overlays: [OverlayRequest] = [], hasSession: Bool = false
  ) {
    self.path = path
    self.identifier = identifier
    self.base = base
    self.created = created
    self.overlays = overlays
    self.hasSession = hasSession
  }
}

/// What became of it.
public struct SnapshotReport: Sendable {
  /// How long the guest stood, without a break.
  public let pauseNanoseconds: UInt64
  /// Whether it needs its base.
  public let isDifferential: Bool
  /// Pages of RAM that were copied while the guest stood.
  public let pagesInPause: Int
  /// Pages that were protected from writes and copied when it ran again.
  public let pagesBehind: Int
}

/// One machine's snapshot on its way into a file: memory while the guest runs, and the rest, at
/// one instant, while it stands.
struct SnapshotSaving {
  private let machine: Machine
  private let board: Board
  private let request: SnapshotRequest
  private let progress: (UInt64, UInt64) -> Void
  /// Without it, going on takes longer, and that is all.
  private let workingSet: SuspendedWorkingSet?

  /// - Parameters:
  ///   - isSuspending: keep what the guest needs of its memory beside the file.
  ///   - progress: told how many bytes of how many are in the file.
  init(
    _ machine: Machine, _ request: SnapshotRequest, isSuspending: Bool = false,
    progress: @escaping (UInt64, UInt64) -> Void
  ) {
    self.machine = machine
    board = machine.board
    self.request = request
    self.progress = progress
    workingSet =
      isSuspending
      ? try? SuspendedWorkingSet(machine.board, former: machine.formerWorkingSet) : nil
  }

  /// - Parameters:
  ///   - beforeLast: done before the last of memory is copied, the guest running.
  ///   - whenTaken: called when the instant is over and disks have their overlays, whatever
  ///     comes after.
  @discardableResult
  func run(
    beforeLast: () throws -> Void = {}, whenTaken: () -> Void = {}
  ) throws -> SnapshotReport {
    try machine.alone {
      let disks = try DiskSwitch(board.drives, request.overlays)
      do {
        return try run(disks, beforeLast, whenTaken)
      } catch {
        disks.abandon()
        throw error
      }
    }
  }

  private func run(
    _ disks: DiskSwitch, _ beforeLast: () throws -> Void, _ whenTaken: () -> Void
  ) throws -> SnapshotReport {
    let changes = try board.lock.withLock { try board.beginSnapshot(on: request.base) }
    let writer = try SnapshotWriter(
      path: request.path, identifier: request.identifier.bytes,
      base: changes.base?.bytes, created: request.created)
    let memory = MemoryCopying(
      machine, changes.pages,
      to: try writer.addMemory(GuestRAM.sectionName, size: board.memory.ram.bytes.count),
      few: request.pagesInPause, workingSet: workingSet, progress: progress)
    defer { memory.end() }
    try memory.copyMost()
    if !disks.isEmpty {
      try disks.prepare()
      try memory.copyMost()
    }
    try beforeLast()
    let rest = try takeRest(memory, disks)
    if disks.isDone { disks.finish() }
    whenTaken()
    try? workingSet?.end()
    try memory.storeRest()
    try store(rest, writer)
    try writer.finish()
    try? workingSet?.store(for: request)
    board.lock.withLock { board.endSnapshot(request.identifier) }
    return SnapshotReport(
      pauseNanoseconds: max(rest.pause, memory.longestStop),
      isDifferential: changes.base != nil, pagesInPause: memory.copiedCount,
      pagesBehind: memory.behindCount)
  }

  /// What is copied while the guest stands, besides RAM.
  private struct Rest {
    var archive = BoardArchive()
    var lived: UInt64 = 0
    var pictures: [(name: String, bytes: [UInt8])] = []
    var pause: UInt64 = 0
  }

  private func takeRest(_ memory: MemoryCopying, _ disks: DiskSwitch) throws -> Rest {
    var rest = Rest()
    memory.prepareInstant()
    for (name, memory, _) in board.pictureMemories {
      rest.pictures.append((name, [UInt8](repeating: 0, count: memory.bytes.count)))
    }
    try memory.settle()
    if !disks.isEmpty {
      try disks.hold()
      // The guest may have run for long meanwhile.
      try memory.settle()
    }
    while true {
      var start: UInt64 = 0
      let isTaken = try machine.whileParked(onPark: { start = MonotonicClock.now }) {
        guard try memory.takeInstant(since: start) else { return false }
        try takeDevices(&rest)
        try disks.carryOut()
        board.markInstant()
        return true
      }
      rest.pause = MonotonicClock.now - start
      if isTaken { return rest }
      // It wrote much of a sudden, which is seen to before the next attempt.
      try memory.letGuestRun(since: start)
      try memory.settle()
    }
  }

  /// vCPUs parked, device lock held.
  private func takeDevices(_ rest: inout Rest) throws {
    rest.archive = try board.saveAllButMemory()
    rest.lived = board.clock.now
    for (index, (_, memory, ranges)) in board.pictureMemories.enumerated() {
      for range in ranges {
        // SAFETY: ranges lie within the memory, which is as large as the copy.
        rest.pictures[index].bytes.withUnsafeMutableBytes { target in
          UnsafeMutableRawBufferPointer(rebasing: target[range])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: memory.bytes[range]))
        }
      }
    }
  }

  private func store(_ rest: Rest, _ writer: SnapshotWriter) throws {
    for (name, bytes) in rest.pictures {
      let memory = try writer.addMemory(name, size: bytes.count)
      // SAFETY: the buffer is used only within the call.
      try bytes.withUnsafeBytes { try memory.store($0, at: 0) }
    }
    try writer.add("devices", try rest.archive.archive.bytes())
    try writer.add("lived", LittleEndian.bytes(rest.lived))
    try writer.add("machine", try StateEncoder().encode(board.description))
    if request.hasSession { try writer.add(MachineTemplate.sessionSection, [1]) }
  }
}

extension Machine {
  /// Saves the whole machine in a file while it runs. Blocks until the file is durable.
  ///
  /// - Parameters:
  ///   - progress: told how many bytes of how many are in the file.
  ///   - beforeLast: done when most of memory is copied, before the instant that is saved.
  ///   - whenTaken: called after that instant: disks have their overlays, with which they go on
  ///     even should the file not be written.
  /// - Throws: `SnapshotError`, `MachineError`, `DiskError`; the path holds what it held before,
  ///   then.
  @discardableResult
  public func saveSnapshot(
    _ request: SnapshotRequest, progress: @escaping (UInt64, UInt64) -> Void = { _, _ in },
    beforeLast: () throws -> Void = {}, whenTaken: () -> Void = {}
  ) throws -> SnapshotReport {
    try SnapshotSaving(self, request, progress: progress)
      .run(beforeLast: beforeLast, whenTaken: whenTaken)
  }

  /// Saves the machine in a file and ends it, for good when the file is durable. Should it
  /// not come to that, the machine runs on, and the path holds what it held before.
  ///
  /// - Parameter whenDurable: called before the machine ends.
  public func suspend(
    to request: SnapshotRequest, progress: @escaping (UInt64, UInt64) -> Void = { _, _ in },
    whenDurable: (SnapshotReport) -> Void = { _ in }
  ) throws {
    guard request.overlays.isEmpty else {
      throw MachineError(
        .configuration, "a machine that is suspended does not go on with overlays",
        remedy: "make them when it is resumed, or save it without suspending it")
    }
    guard stuckReason == nil else {
      throw MachineError(.state, "the guest cannot go on; reset it before it is suspended")
    }
    let wasRunning = status == .running
    var isPaused = false
    let report: SnapshotReport
    do {
      // What disks were told is durable before the state that knows of it.
      let saving = SnapshotSaving(self, request, isSuspending: true, progress: progress)
      report = try saving.run(beforeLast: {
        try pause()
        isPaused = true
        try board.drives.synchronize()
      })
    } catch {
      if wasRunning, isPaused { try? resume() }
      throw error
    }
    whenDurable(report)
    quit(.suspended)
  }
}
