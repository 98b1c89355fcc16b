/// The standard VGA of QEMU, Bochs and Carrel: a Bochs VBE mode on PCI 1234:1111.
struct DisplayAdapter {
  /// The visible frame buffer.
  let screen: Surface

  private enum Register: UInt16 {
    case identity = 0, width, height, depth, enable, bank, virtualWidth, virtualHeight
    case xOffset, yOffset
  }

  /// Sets a 32-bit mode of the wanted size, or 1024×768 if the adapter refuses it.
  init?(width: Int, height: Int) {
    guard let function = PCIFunction.first(where: { $0 == 0x1111_1234 }) else { return nil }
    guard Self.read(.identity) & 0xFFF0 == 0xB0C0 else { return nil }
    var base = function.read(0x10) & 0xFFFF_FFF0
    if base == 0 {
      base = 0xFD00_0000
      function.write(0x10, base)
    }
    function.write(0x04, function.read(0x04) & 0xFFFF | 0x3)
    var size = (width: width, height: height)
    if !Self.setMode(width: width, height: height) {
      size = (1024, 768)
      if !Self.setMode(width: 1024, height: 768) { return nil }
    }
    // Without firmware the colour addresses of the VGA are not decoded yet.
    Port(0x3C2).byte = 0x63
    // The attribute controller blanks the screen until its palette is enabled.
    _ = Port(0x3DA).byte
    Port(0x3C0).byte = 0x20
    let stride = Int(Self.read(.virtualWidth))
    // SAFETY: the BAR decodes at least 16 MiB there, and ring 3 maps all below 4 GiB.
    guard let pixels = UnsafeMutablePointer<UInt32>(bitPattern: UInt(base)) else {
      return nil
    }
    // SAFETY: the adapter accepted stride × height pixels as this mode.
    screen = Surface(
      mapped: pixels, width: size.width, height: size.height, stride: max(stride, size.width))
  }

  private static func setMode(width: Int, height: Int) -> Bool {
    write(.enable, 0)
    write(.width, UInt16(truncatingIfNeeded: width))
    write(.height, UInt16(truncatingIfNeeded: height))
    write(.depth, 32)
    write(.virtualWidth, UInt16(truncatingIfNeeded: width))
    write(.xOffset, 0)
    write(.yOffset, 0)
    write(.enable, 0xC1)  // enabled, linear frame buffer, memory not cleared
    return read(.width) == UInt16(truncatingIfNeeded: width)
      && read(.height) == UInt16(truncatingIfNeeded: height) && read(.enable) & 1 == 1
  }

  private static func read(_ register: Register) -> UInt16 {
    Port(0x1CE).word = register.rawValue
    return Port(0x1CF).word
  }

  private static func write(_ register: Register, _ value: UInt16) {
    Port(0x1CE).word = register.rawValue
    Port(0x1CF).word = value
  }
}
