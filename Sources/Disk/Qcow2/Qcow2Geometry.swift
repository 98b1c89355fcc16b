/// The numbers that follow from the header's sizes (docs/interop/qcow2, Host cluster
/// management and Cluster mapping).
package struct Qcow2Geometry: Equatable, Sendable {
  package let clusterBits: Int
  package let refcountOrder: Int
  package let isVersion3: Bool

  package init(clusterBits: Int, refcountOrder: Int, isVersion3: Bool) {
    self.clusterBits = clusterBits
    self.refcountOrder = refcountOrder
    self.isVersion3 = isVersion3
  }

  init(_ header: Qcow2Header) {
    self.init(
      clusterBits: Int(header.clusterBits), refcountOrder: Int(header.refcountOrder),
      isVersion3: header.version >= 3)
  }

  package var clusterSize: Int { 1 << clusterBits }
  var clusterMask: UInt64 { UInt64(clusterSize) - 1 }
  /// Of an L2 table; entries have 8 bytes.
  var l2Bits: Int { clusterBits - 3 }
  var l2Entries: Int { 1 << l2Bits }
  /// The guest bytes that an L2 table maps, as a power of two.
  var l1Shift: Int { clusterBits + l2Bits }
  var refcountBlockBits: Int { clusterBits + 3 - refcountOrder }
  var refcountBlockEntries: Int { 1 << refcountBlockBits }
  var maximumRefcount: UInt64 { refcountOrder == 6 ? .max : (1 << (1 << refcountOrder)) - 1 }
  /// Host offsets are below: bits 9 to 55 of an entry.
  static let hostLimit: UInt64 = 1 << 56

  func l1Count(for size: UInt64) -> UInt64 {
    (size >> UInt64(l1Shift)) + (size & ((1 << UInt64(l1Shift)) - 1) == 0 ? 0 : 1)
  }

  func clusters(for bytes: UInt64) -> UInt64 {
    (bytes >> UInt64(clusterBits)) + (bytes & clusterMask == 0 ? 0 : 1)
  }
}

/// An entry of the active L1 table (L1 table entry).
enum L1Entry {
  static let isOwn: UInt64 = 1 << 63
  static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
  static let reserved: UInt64 = ~(isOwn | offsetMask)
}

/// An entry of the refcount table (Refcount table entry).
enum RefcountTableEntry {
  static let offsetMask: UInt64 = ~0x1FF
}

/// What an entry of an L2 table says of a guest cluster (L2 table entry).
package enum ClusterMapping: Equatable, Sendable {
  /// It reads as the backing file does there.
  case unallocated
  /// It reads as zeros; `host` is kept for it where that is not `nil`.
  case zero(host: UInt64?, isOwn: Bool)
  /// `isOwn` tells that its reference count is 1, so that it may be written in place.
  case data(host: UInt64, isOwn: Bool)
  case compressed(host: UInt64, count: Int)

  enum Bits {
    static let isOwn: UInt64 = 1 << 63
    static let isCompressed: UInt64 = 1 << 62
    static let isZero: UInt64 = 1 << 0
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
    static let reserved: UInt64 = ~(isOwn | isCompressed | isZero | offsetMask)
  }

  package init(_ entry: UInt64, _ geometry: Qcow2Geometry) throws(FormatProblem) {
    if entry == 0 {
      self = .unallocated
      return
    }
    if entry & Bits.isCompressed != 0 {
      self = try Self.compressed(entry, geometry)
      return
    }
    let host = entry & Bits.offsetMask
    guard entry & Bits.reserved == 0, host & geometry.clusterMask == 0 else {
      throw .corrupt("a cluster is mapped by the entry 0x\(String(entry, radix: 16))")
    }
    let isOwn = entry & Bits.isOwn != 0
    if entry & Bits.isZero != 0 {
      guard geometry.isVersion3 else {
        throw .corrupt("a cluster of zeros, which version 2 has none of")
      }
      self = .zero(host: host == 0 ? nil : host, isOwn: isOwn)
    } else if host == 0 {
      throw .corrupt("data is mapped to its header")
    } else {
      self = .data(host: host, isOwn: isOwn)
    }
  }

  /// Compressed Clusters Descriptor.
  private static func compressed(
    _ entry: UInt64, _ geometry: Qcow2Geometry
  ) throws(FormatProblem) -> ClusterMapping {
    let shift = compressedShift(geometry)
    let descriptor = entry & (Bits.isCompressed - 1)
    let host = descriptor & ((1 << shift) - 1)
    guard entry & Bits.isOwn == 0, host < Qcow2Geometry.hostLimit, host != 0 else {
      throw .corrupt("a compressed cluster is mapped by the entry 0x\(String(entry, radix: 16))")
    }
    let count = (Int(descriptor >> shift) + 1) * 512 - Int(host & 511)
    return .compressed(host: host, count: count)
  }

  private static func compressedShift(_ geometry: Qcow2Geometry) -> UInt64 {
    UInt64(62 - (geometry.clusterBits - 8))
  }

  /// Where compressed clusters must be below.
  static func compressedLimit(_ geometry: Qcow2Geometry) -> UInt64 {
    min(1 << compressedShift(geometry), Qcow2Geometry.hostLimit)
  }

  /// The entry that says this; `count` of a compressed cluster may leave out what follows it
  /// in its last sector.
  package func entry(_ geometry: Qcow2Geometry) -> UInt64 {
    switch self {
    case .unallocated: 0
    case .zero(let host, let isOwn):
      (host ?? 0) | (isOwn && host != nil ? Bits.isOwn : 0) | Bits.isZero
    case .data(let host, let isOwn): host | (isOwn ? Bits.isOwn : 0)
    case .compressed(let host, let count):
      host | ((host + UInt64(count) - 1) >> 9 - host >> 9) << Self.compressedShift(geometry)
        | Bits.isCompressed
    }
  }
}
