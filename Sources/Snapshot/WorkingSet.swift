import CarrelBase
import DeviceModel
import LinuxSystem

/// The pages of a snapshot's memory that its machine needs first, as far as a former run shows:
/// what is read first makes it go on sooner. It is in a file beside the snapshot, and without it
/// nothing is missing but time. All numbers are little-endian.
///
/// ```
/// file = "CARRELWS" version:u32 0:u32
///        identifier:16 bytes                 of the snapshot
///        size:u64                            of the memory, in bytes
///        a bit for each page, in words of 64
///        checksum:u64                        XXH3 of all before
/// ```
public struct WorkingSet: Sendable, Equatable {
  private static let magic: [UInt8] = Array("CARRELWS".utf8)
  private static let version: UInt32 = 1
  private static let headerSize = 40

  /// The snapshot's identifier.
  public let snapshot: [UInt8]
  public let pages: DirtyPages
  private let size: Int

  /// - Parameters:
  ///   - snapshot: the identifier of the snapshot.
  ///   - size: that of its memory, in bytes.
  public init(of snapshot: [UInt8], size: Int, pages: DirtyPages) {
    self.snapshot = snapshot
    self.size = size
    self.pages = pages
  }

  /// Where the one of the snapshot at `path` is.
  public static func path(of path: String) -> String { "\(path).workingset" }

  /// Puts it beside the snapshot at `path`, durably, in place of another.
  public func store(for path: String) throws(SystemError) {
    var bytes = Self.magic + LittleEndian.bytes(Self.version) + [0, 0, 0, 0]
    bytes += snapshot + LittleEndian.bytes(UInt64(size))
    for word in pages.words { bytes += LittleEndian.bytes(word) }
    bytes += LittleEndian.bytes(SnapshotFormat.checksum(bytes))
    try Files.replace(Self.path(of: path), with: bytes)
  }

  /// The one beside a snapshot; `nil` when there is none.
  ///
  /// - Throws: kinds `notASnapshot`, `tooNew`, `damaged`, `inputOutput`, and `wrongBase` when it is
  ///   another snapshot's.
  public init?(of file: SnapshotFile, memory name: String) throws(SnapshotError) {
    let path = Self.path(of: file.path)
    guard let size = file.memory(name)?.size else { return nil }
    let pageCount = size / SnapshotFormat.pageSize
    let length = Self.headerSize + (pageCount + 63) / 64 * 8
    let bytes: [UInt8]
    do {
      bytes = try Files.read(path, limit: length + 8)
    } catch {
      guard error.kind != .notFound else { return nil }
      throw SnapshotError(kind: .inputOutput, context: "working set \(path)", cause: error)
    }
    guard bytes.starts(with: Self.magic) else {
      throw SnapshotError(kind: .notASnapshot, context: "\(path) is no working set")
    }
    guard LittleEndian.number(bytes, at: 8, UInt32.self) == Self.version else {
      throw SnapshotError(kind: .tooNew, context: "working set \(path) is of another version")
    }
    let damage = SnapshotError(kind: .damaged, context: "working set \(path) is damaged")
    guard bytes.count >= Self.headerSize + 8,
      SnapshotFormat.checksum(Array(bytes.dropLast(8)))
        == LittleEndian.number(bytes, at: bytes.count - 8, UInt64.self)
    else { throw damage }
    guard Array(bytes[16..<32]) == file.identifier else {
      throw SnapshotError(kind: .wrongBase, context: "working set \(path) is another snapshot's")
    }
    guard bytes.count == length + 8, LittleEndian.number(bytes, at: 32, UInt64.self) == size else {
      throw damage
    }
    let words = stride(from: Self.headerSize, to: length, by: 8).map {
      LittleEndian.number(bytes, at: $0, UInt64.self)
    }
    let pages = DirtyPages(words: words)
    guard pages.last.map({ $0 < pageCount }) ?? true else { throw damage }
    self.init(of: file.identifier, size: size, pages: pages)
  }
}
