import LinuxSystem

/// An image that others may be based on, as it reads.
public protocol ImageLayer: AnyObject, Sendable {
  var path: String { get }
  /// Size of the disk in bytes.
  var byteCount: UInt64 { get }

  /// Fills the buffers from a range that is within the disk. Called from any thread.
  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) throws(DiskError)

  /// Nobody reads it any more: others may write it.
  func unlock()

  /// This image and what it is based on, from the top.
  var layers: [LayerDescription] { get }
}

/// One of the images that a disk is made of.
public struct LayerDescription: Hashable, Sendable {
  public let path: String
  public let format: ImageFormat

  public init(path: String, format: ImageFormat) {
    self.path = path
    self.format = format
  }
}

extension ImageLayer {
  public var layers: [LayerDescription] { [LayerDescription(path: path, format: .raw)] }

  /// As `read`, with zeros behind the disk's end.
  func readPadded(
    into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64
  ) throws(DiskError) {
    let total = buffers.byteCount
    let count = offset < byteCount ? Int(min(UInt64(total), byteCount - offset)) : 0
    if count > 0 { try read(into: buffers.part(0, count), offset: offset) }
    if count < total { buffers.part(count, total - count).clear() }
  }
}

/// A raw image that qcow2 images are based on.
final class RawLayer: ImageLayer {
  let path: String
  let byteCount: UInt64
  let storage: any ImageStorage

  init(path: String, storage: any ImageStorage) throws(DiskError) {
    self.path = path
    self.storage = storage
    do {
      byteCount = try storage.size()
    } catch {
      throw DiskError(image: path, "find the size", error)
    }
  }

  func unlock() { storage.unlock() }

  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) throws(DiskError) {
    do {
      try storage.readPadded(into: buffers, offset: offset)
    } catch {
      throw DiskError(image: path, "read", error)
    }
  }
}
