import CLinux
import Glibc
import LinuxSystem

/// What a new qcow2 image is like.
public struct Qcow2Options: Sendable {
  public struct Backing: Hashable, Sendable {
    /// As the image says it: relative to its own directory, or absolute.
    public var name: String
    public var format: ImageFormat

    public init(_ name: String, _ format: ImageFormat) {
      self.name = name
      self.format = format
    }
  }

  public enum Compression: UInt8, Sendable {
    case zlib = 0
    case zstd = 1
  }

  /// Of the disk, in bytes; a whole number of sectors.
  public var byteCount: UInt64
  public var clusterSize: Int
  public var version: UInt32
  public var refcountBits: Int
  public var hasLazyRefcounts: Bool
  public var compression: Compression
  public var backing: Backing?

  public init(
    byteCount: UInt64, clusterSize: Int = 65536, version: UInt32 = 3, refcountBits: Int = 16,
    hasLazyRefcounts: Bool = false, compression: Compression = .zlib, backing: Backing? = nil
  ) {
    self.byteCount = byteCount
    self.clusterSize = clusterSize
    self.version = version
    self.refcountBits = refcountBits
    self.hasLazyRefcounts = hasLazyRefcounts
    self.compression = compression
    self.backing = backing
  }
}

extension Qcow2Image {
  /// Makes a new image, which is there as a whole or not at all.
  ///
  /// - Throws: kind `alreadyExists` when there is a file of that name.
  public static func create(
    _ path: String, _ options: Qcow2Options, permissions: UInt32 = 0o600
  ) throws(DiskError) {
    try place(path, permissions) { file in
      try format(FileStorage(file), options, path: path)
    }
  }

  /// Makes a new file, which is there as a whole or not at all, of what `fill` writes to it.
  static func place(
    _ path: String, _ permissions: UInt32, _ fill: (FileDescriptor) throws -> Void
  ) throws(DiskError) {
    let isThere = DiskError(
      kind: .alreadyExists,
      context: "there is a file \(path) already; give another name, or remove it first")
    guard !Files.exists(path) else { throw isThere }
    let temporary = "\(path).\(getpid()).\(clinux_thread_id()).new"
    defer { unlink(temporary) }
    do {
      let file = try FileDescriptor.open(
        temporary, [.writable, .exclusive], permissions: permissions)
      try fill(file)
      // Unlike rename, a link never takes another file's place.
      guard link(temporary, path) == 0 else {
        if errno == EEXIST { throw isThere }
        throw SystemError(code: errno, "create \(path)")
      }
      try FileDescriptor.open(BackingChain.directory(of: path), [.directory]).synchronize()
    } catch let error as SystemError {
      throw DiskError(image: path, "creating", error)
    } catch let error as DiskError {
      throw error
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
  }

  /// Makes a new image in storage that has nothing.
  package static func format(
    _ storage: any ImageStorage, _ options: Qcow2Options, path: String
  ) throws(DiskError) {
    let blueprint = try ImageBlueprint(options, path: path)
    let writes = try blueprint.writes()
    do {
      try storage.grow(to: blueprint.byteCount)
      for write in writes { try storage.write(write.bytes, at: write.offset) }
      try storage.synchronize()
    } catch {
      throw DiskError(image: path, "creating", error)
    }
  }

  /// Makes a new image that reads as another one until it is written.
  ///
  /// - Parameters:
  ///   - base: as the new image says it: relative to its own directory, or absolute.
  ///   - options: its size is that of the base, and the backing as said.
  public static func createOverlay(
    _ path: String, over base: Qcow2Options.Backing, _ policy: BackingPolicy,
    options: Qcow2Options = Qcow2Options(byteCount: 0), permissions: UInt32 = 0o600
  ) throws(DiskError) {
    var options = options
    options.backing = base
    let layer = try ChainOperation.openBase(base, for: path, policy)
    defer { layer.unlock() }
    let sectors = (layer.byteCount + 511) / 512
    options.byteCount = sectors * 512
    try create(path, options, permissions: permissions)
  }
}
