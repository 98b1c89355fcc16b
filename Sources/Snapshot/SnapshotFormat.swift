import CXXHash
import CarrelBase
import DeviceModel

/// A machine at one instant, in one file. All numbers are little-endian.
///
/// ```
/// file      = header regions sections directory
/// header    = "CARRELSN" version:u32 0:u32
///             offset:u64 length:u64 checksum:u64      of the directory
///             checksum:u64                            of the 40 bytes before
///             zeros up to 4096 bytes
/// region    = one memory's pages, each at its own place; holes where nothing is stored.
///             From version 2 on, of one that completes another: its pages one after another,
///             as they came, between which other things may be
/// section   = bytes
/// directory = saved state of `Directory`
/// checksum  = XXH3, 64 bits
/// ```
///
/// Pages are at multiples of the page size, so that they can be mapped from their place.
/// The header is written last: a file that was not finished is none.
enum SnapshotFormat {
  static let magic: [UInt8] = Array("CARRELSN".utf8)
  static let version: UInt32 = 2
  static let headerSize = 48
  static let pageSize = DirtyPages.pageSize
  /// Beyond these it is none of a machine that could run.
  static let largestDirectory: UInt64 = 64 << 20
  static let largestMemory: UInt64 = 1 << 42

  /// Where bytes are, and what they must sum up to.
  struct Extent: Codable, Sendable, Equatable {
    var offset: UInt64
    var length: UInt64
    var checksum: UInt64
  }

  struct Section: Codable, Sendable {
    var name: String
    var extent: Extent
  }

  /// One memory of the machine.
  struct Memory: Codable, Sendable {
    var name: String
    /// In bytes; a whole number of pages.
    var size: UInt64
    /// Of its region, if pages are at their own places in one.
    var offset: UInt64
    /// A bit for each page that is stored in the region.
    var stored: Extent
    /// A bit for each page that is zero. Pages that are neither come from the base; without
    /// one they are zero.
    var zero: Extent
    /// A checksum for each stored page, in their order.
    var checksums: Extent
    /// From version 2 on, and where there is no region: for each stored page, in their order,
    /// where it is, in pages of the file.
    var places: Extent?
  }

  struct Directory: Codable, Sendable {
    var identifier: [UInt8]
    /// Of the snapshot that this one completes.
    var base: [UInt8]?
    /// Seconds since 1970.
    var created: UInt64
    var sections: [Section]
    var memories: [Memory]
  }

  static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    XXH3_64bits(bytes.baseAddress, bytes.count)
  }

  static func checksum(_ bytes: [UInt8]) -> UInt64 {
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { checksum($0) }
  }

  /// - Parameter isCompact: a version that knows no `places` cannot read it.
  static func header(of directory: Extent, isCompact: Bool) -> [UInt8] {
    let version: UInt32 = isCompact ? 2 : 1
    var bytes = magic + LittleEndian.bytes(version) + [0, 0, 0, 0]
    for number in [directory.offset, directory.length, directory.checksum] {
      bytes += LittleEndian.bytes(number)
    }
    bytes += LittleEndian.bytes(checksum(bytes))
    return bytes + [UInt8](repeating: 0, count: pageSize - bytes.count)
  }

  /// Where the directory is.
  static func directory(in header: [UInt8], of path: String) throws(SnapshotError) -> Extent {
    guard header.starts(with: magic) else {
      throw SnapshotError(
        kind: .notASnapshot, context: "\(path) is no snapshot; give one that Carrel made")
    }
    let version = header.count >= 12 ? LittleEndian.number(header, at: 8, UInt32.self) : 0
    guard version <= Self.version else {
      throw SnapshotError(
        kind: .tooNew,
        context: "snapshot \(path) has version \(version), this program reads up to"
          + " \(Self.version); open it with a newer Carrel")
    }
    guard header.count >= headerSize, version > 0,
      LittleEndian.number(header, at: 40, UInt64.self) == checksum(Array(header[..<40]))
    else { throw damaged(path, "its header") }
    return Extent(
      offset: LittleEndian.number(header, at: 16, UInt64.self),
      length: LittleEndian.number(header, at: 24, UInt64.self),
      checksum: LittleEndian.number(header, at: 32, UInt64.self))
  }

  static func damaged(
    _ path: String, _ what: String, cause: (any Error)? = nil
  ) -> SnapshotError {
    SnapshotError(
      kind: .damaged,
      context: "snapshot \(path) is damaged: \(what) is not as it was written;"
        + " restore the file from a backup, or use another snapshot", cause: cause)
  }
}
