/// Guest RAM in place, as something that reads it outside of the device lock has it: the
/// guest may change it meanwhile, and it stays mapped as long as this value exists.
public struct GuestBytes {
  /// They follow each other.
  public let pieces: [UnsafeRawBufferPointer]
  private let owner: AnyObject

  /// - Parameter owner: what keeps the pieces mapped while it lives.
  public init(pieces: [UnsafeRawBufferPointer], owner: AnyObject) {
    self.pieces = pieces
    self.owner = owner
  }

  /// The bytes as they are now.
  public func copy() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(pieces.reduce(0) { $0 + $1.count })
    for piece in pieces { bytes.append(contentsOf: piece) }
    return bytes
  }

  /// Memory of their own, for bytes that cannot be had in place.
  final class Copy {
    let bytes: UnsafeMutableRawBufferPointer

    init(size: Int) {
      bytes = .allocate(byteCount: size, alignment: 16)
    }

    deinit { bytes.deallocate() }
  }
}
