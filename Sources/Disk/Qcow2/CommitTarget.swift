import LinuxSystem

/// A base that a commit writes to.
package enum CommitTarget {
  case raw(path: String, any ImageStorage)
  case qcow2(Qcow2Image)

  init(
    _ path: String, _ format: ImageFormat, size: UInt64, _ policy: BackingPolicy
  ) throws(DiskError) {
    switch format {
    case .raw:
      let storage = FileStorage(try ImageFile.openLocked(path, isReadOnly: false))
      self = try Self.growing(path, storage, to: size)
    case .qcow2:
      let image = try Qcow2Image.open(path, isReadOnly: false, policy)
      self = try Self.growing(image, to: size) { () throws(DiskError) in
        try Qcow2Image.open(path, isReadOnly: false, policy)
      }
    }
  }

  /// A raw image, which is made as large if it is smaller.
  package static func growing(
    _ path: String, _ storage: any ImageStorage, to size: UInt64
  ) throws(DiskError) -> CommitTarget {
    do {
      try storage.grow(to: size)
    } catch {
      throw DiskError(image: path, "growing", error)
    }
    return .raw(path: path, storage)
  }

  /// A qcow2 image, which is made as large if it is smaller.
  ///
  /// - Parameter reopen: opens the image, which was closed for that, again.
  package static func growing(
    _ image: Qcow2Image, to size: UInt64, reopen: () throws(DiskError) -> Qcow2Image
  ) throws(DiskError) -> CommitTarget {
    guard image.byteCount < size else { return .qcow2(image) }
    try image.growDisk(to: size)
    try image.close()
    return .qcow2(try reopen())
  }

  func write(_ bytes: UnsafeRawBufferPointer, offset: UInt64) throws(DiskError) {
    switch self {
    case .qcow2(let image): try image.write(from: [bytes], offset: offset)
    case .raw(let path, let storage):
      do {
        try storage.write([bytes], offset: offset)
      } catch {
        throw DiskError(image: path, "write", error)
      }
    }
  }

  func writeZeroes(_ offset: UInt64, _ count: UInt64) throws(DiskError) {
    switch self {
    case .qcow2(let image):
      try image.writeZeroes(offset: offset, count: count, mayDiscard: true)
    case .raw(let path, let storage):
      do {
        if try storage.punch(offset: offset, count: count) { return }
        try storage.write([UInt8](repeating: 0, count: Int(count)), at: offset)
      } catch {
        throw DiskError(image: path, "write", error)
      }
    }
  }

  func close() throws(DiskError) {
    switch self {
    case .qcow2(let image): try image.close()
    case .raw(let path, let storage):
      do {
        try storage.synchronize()
      } catch {
        throw DiskError(image: path, "flush", error)
      }
      storage.unlock()
    }
  }
}
