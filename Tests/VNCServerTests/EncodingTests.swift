import DeviceModel
import Display
import LinuxSystem
import Testing
import VNCServer

@Suite("Encodings, decoded by libvncclient", .timeLimit(.minutes(6)), .serialized)
struct EncodingTests {
  private func listener(_ machine: FakeMachine) throws -> ViewerListener {
    let server = machine.server
    return try ViewerListener(at: "127.0.0.1:0", configuration: ViewerConfiguration()) {
      try server.connect()
    }
  }

  @Test(
    "every encoding gives the exact picture",
    arguments: ["raw", "copyrect raw", "hextile", "zlib", "zrle", "tight", "copyrect tight"])
  func exact(encodings: String) throws {
    let machine = try FakeMachine()
    let size = scanout(333, 222)
    machine.paint(size)
    machine.server.publish(size)
    let listener = try listener(machine)
    defer { listener.close() }
    let viewer = try LibVNCViewer(port: listener.port, encodings: encodings)
    #expect(try viewer.run { viewer.difference(size, machine) == 0 })
    for round in 1...4 {
      machine.fill(
        size, Rect(x: round * 20, y: round * 30, width: 80, height: 25), 0x234567 * UInt32(round))
      #expect(try viewer.run { viewer.difference(size, machine) == 0 })
    }
    machine.paint(size, seed: 4)
    #expect(try viewer.run { viewer.difference(size, machine) == 0 })
    let larger = scanout(400, 300)
    machine.paint(larger, seed: 5)
    machine.server.publish(larger)
    #expect(try viewer.run { viewer.difference(larger, machine) == 0 })
  }

  /// RFC 1950 section 2.2: the second byte tells of the level, 0 … 1, 2 … 5, 6, 7 … 9.
  @Test(
    "ZRLE is compressed as much as the viewer asks, and moderately if it does not",
    arguments: zip([nil, 0, 1, 3, 6, 9], [0x5E, 0x01, 0x01, 0x5E, 0x9C, 0xDA] as [UInt8]))
  func compressionLevel(level: Int32?, header: UInt8) throws {
    let size = scanout(320, 200)
    let connection = try Connection(size)
    connection.machine.paint(size)
    let viewer = connection.viewer
    try viewer.handshake()
    try viewer.setEncodings([16] + (level.map { [$0 - 256] } ?? []))
    try viewer.request(incremental: false)
    var payload: [UInt8] = []
    _ = try viewer.next { event in
      guard case .update(let rects) = event else { return false }
      payload = rects.first { $0.encoding == 16 }?.payload ?? []
      return !payload.isEmpty
    }
    #expect(payload.prefix(2) == [0x78, header])
  }

  @Test("JPEG comes first, and a picture that stands still becomes exact")
  func lossyThenExact() throws {
    let machine = try FakeMachine()
    let size = scanout(320, 240)
    // Smooth colours, of which JPEG changes many a little.
    for y in 0..<240 {
      for x in 0..<320 {
        machine.set(
          size, x: x, y: y, UInt32(x * 255 / 319) << 16 | UInt32(y) << 8 | UInt32((x ^ y) & 255))
      }
    }
    machine.server.publish(size)
    let listener = try listener(machine)
    defer { listener.close() }
    let viewer = try LibVNCViewer(port: listener.port, encodings: "tight", quality: 2)
    var sawLoss = false
    #expect(
      try viewer.run {
        let difference = viewer.difference(size, machine)
        if (1..<256).contains(difference) { sawLoss = true }
        return difference == 0
      })
    #expect(sawLoss)
  }

  @Test("surfaces of every format are shown", arguments: [PixelFormat.rgb888, .rgb565, .xrgb1555])
  func formats(format: PixelFormat) throws {
    let machine = try FakeMachine()
    let bytes = format.bytesPerPixel
    let surface = Scanout(
      source: .videoMemory, offset: 6, stride: 101 * bytes + 1, width: 101, height: 60,
      format: format)
    for y in 0..<60 {
      for x in 0..<101 {
        for byte in 0..<bytes {
          machine.memory.bytes[surface.offset + y * surface.stride + x * bytes + byte] =
            UInt8((x * 7 + y * 3 + byte * 50) & 255)
        }
      }
    }
    machine.server.publish(surface)
    let connection = try Connection(surface, machine: machine)
    let viewer = connection.viewer
    try viewer.handshake()
    try viewer.setEncodings([0])
    try viewer.request(incremental: false)
    let wanted = { (x: Int, y: Int) -> UInt32 in
      let at = surface.offset + y * surface.stride + x * bytes
      let raw = (0..<bytes).reduce(UInt32(0)) {
        $0 | UInt32(machine.memory.bytes[at + $1]) << UInt32($1 * 8)
      }
      func wide(_ value: UInt32, _ bits: UInt32) -> UInt32 {
        value << (8 - bits) | value >> (2 * bits - 8)
      }
      return switch format {
      case .rgb565: wide(raw >> 11, 5) << 16 | wide(raw >> 5 & 63, 6) << 8 | wide(raw & 31, 5)
      case .xrgb1555:
        wide(raw >> 10 & 31, 5) << 16 | wide(raw >> 5 & 31, 5) << 8 | wide(raw & 31, 5)
      default: raw
      }
    }
    try viewer.update {
      (0..<60).allSatisfy { y in (0..<101).allSatisfy { viewer.pixel($0, y) == wanted($0, y) } }
    }
  }

  @Test("viewers of one machine are independent")
  func severalViewers() throws {
    let machine = try FakeMachine()
    let size = scanout(200, 150)
    machine.paint(size)
    machine.server.publish(size)
    let listener = try listener(machine)
    defer { listener.close() }
    let first = try LibVNCViewer(port: listener.port, encodings: "zrle")
    var second: LibVNCViewer? = try LibVNCViewer(port: listener.port, encodings: "tight")
    #expect(try first.run { first.difference(size, machine) == 0 })
    if let second { #expect(try second.run { second.difference(size, machine) == 0 }) }
    second = nil
    machine.paint(size, seed: 8)
    #expect(try first.run { first.difference(size, machine) == 0 })
  }

  @Test("a port that is taken is an error that names it")
  func portTaken() throws {
    let machine = try FakeMachine()
    let listener = try listener(machine)
    defer { listener.close() }
    let server = machine.server
    #expect {
      try ViewerListener(
        at: "127.0.0.1:\(listener.port)", configuration: ViewerConfiguration()
      ) { try server.connect() }
    } throws: { error in
      "\(error)".contains("127.0.0.1:\(listener.port)")
        && (error as? SystemError)?.kind == .addressInUse
    }
  }
}
