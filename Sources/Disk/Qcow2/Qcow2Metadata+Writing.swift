/// How the beginning of a write is carried out.
enum WritePlan {
  /// To clusters that are the image's own, one behind the other.
  case inPlace(host: UInt64, count: Int)
  case allocating(ClusterAllocation)
  /// Somebody else allocates the cluster at this moment.
  case busy
  /// The refcount table has to grow first.
  case needsGrowth
}

/// Host clusters that guest clusters get once their data is there.
struct ClusterAllocation {
  /// A guest's.
  let first: UInt64
  let clusters: Int
  let host: UInt64
  let isVirgin: Bool
  /// The host cluster was the guest cluster's already, which read as zeros.
  let isReused: Bool
  /// How much of the request it covers.
  let count: Int
  /// What the first and the last cluster were before.
  let head: ClusterMapping
  let tail: ClusterMapping

  var guestClusters: Range<UInt64> { first..<first + UInt64(clusters) }
}

extension Qcow2Metadata {
  /// As many bytes may be allocated at once.
  static let mostAllocated = 4 << 20

  /// - Parameter busy: guest clusters that others are allocating.
  func planWrite(_ offset: UInt64, _ count: Int, busy: Set<UInt64>) throws(DiskError) -> WritePlan {
    let first = cluster(at: offset)
    guard busy.isEmpty || !busy.contains(first) else { return .busy }
    guard let table = try ownL2Table(l1Index(first)) else { return .needsGrowth }
    let extent = try extent(at: offset, count: count)
    switch extent.mapping {
    case .data(let host, true): return .inPlace(host: host, count: extent.count)
    case .zero(.some(let host), true):
      let rest = geometry.clusterSize - Int(offset & geometry.clusterMask)
      return .allocating(
        ClusterAllocation(
          first: first, clusters: 1, host: host, isVirgin: false, isReused: true,
          count: min(count, rest), head: extent.mapping, tail: extent.mapping))
    default:
      let head = try mapping(table[l2Index(first)])
      return try allocating(table, offset, count, head, busy)
    }
  }

  private func allocating(
    _ table: MetadataTable, _ offset: UInt64, _ count: Int, _ head: ClusterMapping,
    _ busy: Set<UInt64>
  ) throws(DiskError) -> WritePlan {
    let (first, skipped) = (cluster(at: offset), Int(offset & geometry.clusterMask))
    let index = l2Index(first)
    let most = min(
      Int(geometry.clusters(for: UInt64(skipped + count))), geometry.l2Entries - index,
      max(1, Self.mostAllocated >> geometry.clusterBits))
    var wanted = 1
    while wanted < most, !busy.contains(first + UInt64(wanted)),
      needsAllocation(table[index + wanted])
    { wanted += 1 }
    guard let run = try allocate(upTo: wanted, .data) else { return .needsGrowth }
    let bytes = run.count << geometry.clusterBits
    return .allocating(
      ClusterAllocation(
        first: first, clusters: run.count, host: self.offset(of: run.first),
        isVirgin: run.isVirgin, isReused: false, count: min(count, bytes - skipped), head: head,
        tail: try mapping(table[index + run.count - 1])))
  }

  private func needsAllocation(_ entry: UInt64) -> Bool {
    switch try? mapping(entry) {
    case nil, .data(_, true), .zero(.some, true): false
    default: true
    }
  }

  /// The data is there: guest clusters lead to it from now on.
  func finish(_ allocation: ClusterAllocation) throws(DiskError) {
    guard let table = try l2Table(l1Index(allocation.first)) else {
      throw corrupt("an L2 table is gone")
    }
    let index = l2Index(allocation.first)
    for number in 0..<allocation.clusters {
      let host = allocation.host + offset(of: UInt64(number))
      try setMapping(.data(host: host, isOwn: true), index + number, of: table)
    }
  }

  /// Nothing leads to the clusters, nor will.
  func abandon(_ allocation: ClusterAllocation) {
    guard !allocation.isReused else { return }
    let first = cluster(at: allocation.host)
    pendingFrees += first..<first + UInt64(allocation.clusters)
  }
}

/// How a range is made to hold nothing.
enum ClusterClearing {
  /// Its contents do not matter any more.
  case discard
  /// Zeros, with their storage kept.
  case zero
  /// Zeros, without storage.
  case zeroSparsely
  /// Zeros whatever another backing file has there.
  case zeroForAnyBacking
  /// As the backing file has it.
  case deallocate
}

enum ClearingStep {
  /// As many clusters are done.
  case done(Int)
  /// As many clusters are zeros only if zeros are written, as in version 2.
  case mustWrite(Int)
  case busy
  case needsGrowth
}

extension Qcow2Metadata {
  /// Clears whole guest clusters from `first` on, as far as an L2 table goes.
  func clear(
    _ first: UInt64, count: Int, _ way: ClusterClearing, busy: Set<UInt64>
  ) throws(DiskError) -> ClearingStep {
    let index = l2Index(first)
    let most = min(count, geometry.l2Entries - index)
    if try l2Table(l1Index(first)) == nil, isUnallocatedAsWanted(first, way) { return .done(most) }
    var done = 0
    while done < most {
      let cluster = first + UInt64(done)
      if busy.contains(cluster) { return done > 0 ? .done(done) : .busy }
      let former = try l2Table(l1Index(first)).map { $0[index + done] } ?? 0
      let mapping = try self.mapping(former)
      guard let wanted = cleared(mapping, cluster, way) else {
        return done > 0 ? .done(done) : .mustWrite(1)
      }
      if wanted != mapping {
        guard let table = try ownL2Table(l1Index(first)) else {
          return done > 0 ? .done(done) : .needsGrowth
        }
        try setMapping(wanted, index + done, of: table)
      }
      done += 1
    }
    return .done(done)
  }

  /// Whether an unallocated cluster, and those behind it, are what is wanted.
  private func isUnallocatedAsWanted(_ cluster: UInt64, _ way: ClusterClearing) -> Bool {
    switch way {
    case .deallocate: true
    case .discard: !isBacked(cluster) || !geometry.isVersion3
    case .zero, .zeroSparsely: !isBacked(cluster)
    case .zeroForAnyBacking: false
    }
  }

  /// - Returns: `nil` when zeros must be written.
  private func cleared(
    _ mapping: ClusterMapping, _ cluster: UInt64, _ way: ClusterClearing
  ) -> ClusterMapping? {
    let zeros: ClusterMapping? = geometry.isVersion3 ? .zero(host: nil, isOwn: false) : nil
    switch way {
    case .deallocate: return .unallocated
    case .zeroForAnyBacking: return zeros
    // The backing file's data would show again: version 2 keeps what there is.
    case .discard: return isBacked(cluster) ? zeros ?? mapping : .unallocated
    case .zeroSparsely: return isBacked(cluster) ? zeros : .unallocated
    case .zero:
      switch mapping {
      case .unallocated: return isBacked(cluster) ? zeros : mapping
      case .zero: return mapping
      case .data(let host, true): return zeros.map { _ in .zero(host: host, isOwn: true) }
      case .data, .compressed: return zeros
      }
    }
  }
}
