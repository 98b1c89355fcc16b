import DeviceModel
import Display
import LinuxSystem

/// A picture in memory shared with a VMM, mapped for reading.
///
/// The VMM and its guest go on writing while it is read: a reader copies what it
/// wants to look at twice.
public final class DisplaySurface: Sendable {
  public let scanout: Scanout
  private let mapping: MemoryMapping

  /// - Throws: kind `surface` when the picture does not lie within the memory.
  init(_ scanout: Scanout, _ mapping: MemoryMapping) throws(DisplayLinkError) {
    guard scanout.fits(in: mapping.bytes.count) else {
      throw DisplayLinkError(
        .surface,
        "display link: a surface of \(scanout.width)×\(scanout.height) at \(scanout.offset) "
          + "does not fit its memory of \(mapping.bytes.count) bytes")
    }
    self.scanout = scanout
    self.mapping = mapping
  }

  /// The picture's bytes, from its first pixel to its last, valid while this
  /// object lives.
  public var bytes: UnsafeRawBufferPointer {
    let span = scanout.byteSpan ?? 0
    // SAFETY: `init` checked that offset and span lie within the mapping.
    return UnsafeRawBufferPointer(
      rebasing: mapping.bytes[scanout.offset..<(scanout.offset + span)])
  }
}
