import LinuxSystem

// SAFETY: the metadata is only ever reached with the lock held; `isCommitting` makes commits
// take turns while they write without it.
/// The metadata of an image and its lock, with what needs the lock more than once.
final class GuardedMetadata: @unchecked Sendable {
  private let lock = Lock()
  private let metadata: Qcow2Metadata
  private let storage: any ImageStorage
  private let path: String
  private var isCommitting = false
  /// Of the commits that were begun, and the last of them that succeeded.
  private var commits: (begun: UInt64, succeeded: UInt64) = (0, 0)
  /// Guest clusters that are being allocated, and how many wait for some of them.
  private var busy: Set<UInt64> = []
  private var waiting = 0

  init(_ metadata: Qcow2Metadata) {
    self.metadata = metadata
    (storage, path) = (metadata.storage, metadata.path)
  }

  func withLock<Result, Failure: Error>(
    _ body: (Qcow2Metadata) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withLock { () throws(Failure) -> Result in try body(metadata) }
  }

  /// Looks something up; the clusters that it found stay what they are until `end`.
  func begin<Result>(
    _ body: (Qcow2Metadata) throws(DiskError) -> Result
  ) throws(DiskError) -> (Result, epoch: UInt64) {
    try lock.withLock { () throws(DiskError) in
      let result = try body(metadata)
      return (result, metadata.epochs.begin())
    }
  }

  /// What this frees is used again; a failure to do so is found when it is.
  func end(_ epoch: UInt64) {
    lock.withLock {
      do throws(DiskError) {
        try metadata.endOperation(epoch)
      } catch {
        spoil(error)
      }
    }
  }

  /// Plans a write. The clusters to allocate are busy until `finish`.
  func planWrite(
    _ offset: UInt64, _ count: Int
  ) throws(DiskError) -> (WritePlan, epoch: UInt64) {
    while true {
      let planned = try changing { metadata throws(DiskError) -> (WritePlan, epoch: UInt64)? in
        let plan = try metadata.planWrite(offset, count, busy: busy)
        switch plan {
        case .busy: wait()
        case .needsGrowth: return nil
        case .inPlace: return (plan, metadata.epochs.begin())
        case .allocating(let allocation):
          busy.formUnion(allocation.guestClusters)
          return (plan, metadata.epochs.begin())
        }
        return (plan, 0)
      }
      switch planned {
      case nil: try growRefcountTable()
      case (.busy, _)?: continue
      case let planned?: return planned
      }
    }
  }

  /// The allocation's data is there, or could not be written.
  func finish(_ allocation: ClusterAllocation, _ epoch: UInt64, isWritten: Bool) throws(DiskError) {
    defer { end(epoch) }
    try lock.withLock { () throws(DiskError) in
      defer {
        busy.subtract(allocation.guestClusters)
        if waiting > 0 { lock.wakeAll() }
      }
      guard isWritten else { return metadata.abandon(allocation) }
      do throws(DiskError) {
        try metadata.finish(allocation)
      } catch {
        spoil(error)
        throw error
      }
    }
  }

  /// Clears whole clusters, as many as go at once.
  func clear(
    _ first: UInt64, count: Int, _ way: ClusterClearing
  ) throws(DiskError) -> ClearingStep {
    while true {
      let step = try changing { metadata throws(DiskError) in
        let step = try metadata.clear(first, count: count, way, busy: busy)
        if case .busy = step { wait() }
        return step
      }
      switch step {
      case .busy: continue
      case .needsGrowth: try growRefcountTable()
      default: return step
      }
    }
  }

  /// Changes metadata, once it is time for that.
  func changing<Result>(
    _ body: (Qcow2Metadata) throws(DiskError) -> Result
  ) throws(DiskError) -> Result {
    while true {
      let result = try lock.withLock { () throws(DiskError) -> Result? in
        if metadata.wantsCommit { return nil }
        do throws(DiskError) {
          try metadata.prepareToWrite()
          return try body(metadata)
        } catch {
          spoil(error)
          throw error
        }
      }
      if let result { return result }
      try commit(counts: true)
    }
  }

  /// Lock held.
  private func wait() {
    waiting += 1
    lock.wait()
    waiting -= 1
  }

  /// Lock held: an image that contradicts itself is not written any more.
  private func spoil(_ error: DiskError) {
    if error.kind == .corrupt, !metadata.header.isCorrupt { metadata.markCorrupt() }
  }
}

extension GuardedMetadata {
  /// Stores what was changed before now. Several who ask at once share a commit that begins
  /// afterwards.
  ///
  /// - Parameter counts: also reference counts that may be stored lazily.
  func commit(counts: Bool = false) throws(DiskError) {
    let commit = try lock.withLock { () throws(DiskError) -> (MetadataCommit, number: UInt64)? in
      let needed = commits.begun + 1
      while isCommitting { lock.wait() }
      // What contradicts itself in memory does not make the stored image better.
      guard !metadata.header.isCorrupt else { throw metadata.corrupt("it is not written any more") }
      let isLazy = metadata.header.hasLazyRefcounts
      if commits.succeeded >= needed, !counts || !isLazy { return nil }
      isCommitting = true
      commits.begun += 1
      return (metadata.takeCommit(counts: counts || !isLazy), commits.begun)
    }
    guard let (commit, number) = commit else { return }
    do {
      try commit.write(to: storage)
    } catch {
      lock.withLock {
        metadata.fail(commit)
        isCommitting = false
        lock.wakeAll()
      }
      throw DiskError(image: path, "flush", error)
    }
    try lock.withLock { () throws(DiskError) in
      commits.succeeded = number
      isCommitting = false
      lock.wakeAll()
      do throws(DiskError) {
        try metadata.finish(commit)
      } catch {
        spoil(error)
        throw error
      }
    }
  }

  func growRefcountTable() throws(DiskError) {
    try commit(counts: true)
    try lock.withLock { () throws(DiskError) in
      while isCommitting { lock.wait() }
      // Otherwise somebody changed something: the caller finds out.
      if metadata.isRefcountTableStored { try metadata.growRefcountTable() }
    }
  }

  /// Everything is stored, what became free included.
  func close() throws(DiskError) {
    try commit(counts: true)
    try commit(counts: true)
    try lock.withLock { () throws(DiskError) in
      if metadata.header.isDirty, !metadata.header.isCorrupt { try metadata.markClean() }
    }
  }
}
