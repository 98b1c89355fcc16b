/// Where the demo desktop's `flip` scene toggles its square
/// (assets/demo-desktop/README.md).
enum FlipBlock {
  static let x = 128
  static let y = 128
}

/// The frame number that the `fullscreen` scene draws as a bar code, twice
/// (assets/demo-desktop/README.md).
enum BarCode {
  private static let cells = 36
  private static let cellWidth = 16
  private static let left = 32

  /// The number in the viewer's picture; `nil` when the picture is of two frames.
  static func read(_ viewer: VNCPeer) -> UInt32? {
    guard let top = read(viewer, row: 32), top == read(viewer, row: viewer.height - 64) else {
      return nil
    }
    return top
  }

  private static func read(_ viewer: VNCPeer, row: Int) -> UInt32? {
    let bits = (0..<cells).map { cell -> Bool in
      let pixel = viewer.pixel(left + cellWidth * cell + cellWidth / 2, row + 16)
      return pixel >> 8 & 0xFF > 127
    }
    guard bits[0], !bits[1], bits[cells - 1] else { return nil }
    let number = bits[2..<34].reduce(UInt32(0)) { $0 << 1 | ($1 ? 1 : 0) }
    return (number.nonzeroBitCount % 2 == 1) == bits[34] ? number : nil
  }
}
