/// Guest RAM in place, as something that writes it outside of the device lock has it: the
/// guest may look at it and change it meanwhile, and it stays mapped as long as this value
/// exists.
public struct GuestSpace {
  /// They follow each other.
  public let pieces: [UnsafeMutableRawBufferPointer]
  /// Where they are for the guest.
  public let ranges: [(address: UInt64, count: Int)]
  fileprivate let owner: AnyObject

  /// - Parameter owner: what keeps the pieces mapped while it lives.
  public init(
    pieces: [UnsafeMutableRawBufferPointer], ranges: [(address: UInt64, count: Int)],
    owner: AnyObject
  ) {
    (self.pieces, self.ranges, self.owner) = (pieces, ranges, owner)
  }

  /// Fills all of it from the first bytes on.
  public func copy(_ bytes: [UInt8]) {
    var rest = bytes[...]
    for piece in pieces {
      piece.copyBytes(from: rest.prefix(piece.count))
      rest = rest.dropFirst(piece.count)
    }
  }
}

extension GuestMemory {
  /// For memory that is not mapped: a copy, which `wrote` puts in its place.
  public func space(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestSpace {
    let copy = GuestBytes.Copy(size: ranges.reduce(0) { $0 + $1.count })
    try eachPart(of: copy, ranges) { (address, part) throws(GuestMemoryError) in
      try read(at: address, into: part)
    }
    return GuestSpace(pieces: [copy.bytes], ranges: ranges, owner: copy)
  }

  public func wrote(_ space: GuestSpace) {
    guard let copy = space.owner as? GuestBytes.Copy else { return }
    // It was RAM when it was asked for.
    try? eachPart(of: copy, space.ranges) { (address, part) throws(GuestMemoryError) in
      try write(at: address, from: UnsafeRawBufferPointer(part))
    }
  }

  private func eachPart(
    of copy: GuestBytes.Copy, _ ranges: [(address: UInt64, count: Int)],
    _ body: (UInt64, UnsafeMutableRawBufferPointer) throws(GuestMemoryError) -> Void
  ) throws(GuestMemoryError) {
    var done = 0
    for range in ranges {
      // SAFETY: the ranges' sizes add up to the copy's.
      try body(
        range.address,
        UnsafeMutableRawBufferPointer(rebasing: copy.bytes[done..<done + range.count]))
      done += range.count
    }
  }
}
