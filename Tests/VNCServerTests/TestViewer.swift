import DeviceModel
import Glibc
import LinuxSystem
import VNCServer

/// A small RFB client that shows what is on the wire: it decodes Raw, CopyRect and
/// Hextile, passes over the pixels of Tight and ZRLE, and keeps pseudo-rectangles and
/// messages as they come.
final class TestViewer {
  struct Failure: Error, CustomStringConvertible { let description: String }

  /// One thing the server said.
  enum Event: Equatable {
    case update([Rectangle])
    case bell
    case cutText([UInt8])
    case endOfContinuousUpdates
    case fence(flags: UInt32, payload: [UInt8])
    case xvp(code: UInt8)
  }

  struct Rectangle: Equatable {
    var rect: Rect
    var encoding: Int32
    var payload: [UInt8] = []
  }

  let descriptor: FileDescriptor
  private(set) var width = 0
  private(set) var height = 0
  private(set) var name = ""
  private(set) var pixels: [UInt32] = []
  /// All bytes received so far.
  private(set) var received = 0
  private var buffer: [UInt8] = []
  /// What a slow link hands over in each millisecond at most; `nil` for all there is.
  private let bytesPerMillisecond: Int?

  init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
    bytesPerMillisecond = nil
  }

  /// The reading half of a viewer that is connected already, on a slow link.
  init(_ descriptor: FileDescriptor, _ size: Scanout, bytesPerMillisecond: Int) {
    self.descriptor = descriptor
    self.bytesPerMillisecond = bytesPerMillisecond
    resize(size.width, size.height)
  }

  // MARK: Talking

  func send(_ bytes: [UInt8]) throws {
    try descriptor.writeAll(bytes)
  }

  func handshake(version: String = "003.008") throws {
    guard try read(12) == Array("RFB 003.008\n".utf8) else {
      throw Failure(description: "greeting")
    }
    try send(Array("RFB \(version)\n".utf8))
    if version >= "003.007" {
      guard try read(2) == [1, 1] else { throw Failure(description: "security types") }
      try send([1])
      if version >= "003.008", try read(4) != [0, 0, 0, 0] {
        throw Failure(description: "security result")
      }
    } else if try read(4) != [0, 0, 0, 1] {
      throw Failure(description: "security type")
    }
    try send([1])
    let header = try read(24)
    resize(Int(header[0]) << 8 | Int(header[1]), Int(header[2]) << 8 | Int(header[3]))
    name = String(decoding: try read(Self.number(header[20...])), as: UTF8.self)
  }

  func setEncodings(_ encodings: [Int32]) throws {
    try send([2, 0] + Self.big(UInt16(encodings.count)) + encodings.flatMap { Self.big($0) })
  }

  func request(incremental: Bool = true, _ rect: Rect? = nil) throws {
    let rect = rect ?? Rect(x: 0, y: 0, width: width, height: height)
    try send([3, incremental ? 1 : 0] + Self.bytes(rect))
  }

  func key(_ keysym: UInt32, _ pressed: Bool) throws {
    try send([4, pressed ? 1 : 0, 0, 0] + Self.big(keysym))
  }

  func extendedKey(_ code: UInt32, _ pressed: Bool, keysym: UInt32 = 0) throws {
    try send([255, 0, 0, pressed ? 1 : 0] + Self.big(keysym) + Self.big(code))
  }

  func pointer(_ buttons: UInt8, _ x: Int, _ y: Int) throws {
    try send([5, buttons] + Self.big(UInt16(x)) + Self.big(UInt16(y)))
  }

  func continuousUpdates(_ enabled: Bool, _ rect: Rect? = nil) throws {
    let rect = rect ?? Rect(x: 0, y: 0, width: width, height: height)
    try send([150, enabled ? 1 : 0] + Self.bytes(rect))
  }

  func fence(_ flags: UInt32, _ payload: [UInt8]) throws {
    try send([248, 0, 0, 0] + Self.big(flags) + [UInt8(payload.count)] + payload)
  }

  static func big(_ value: some FixedWidthInteger) -> [UInt8] {
    // SAFETY: the bytes of one integer, read while it is alive.
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }

  private static func bytes(_ rect: Rect) -> [UInt8] {
    [rect.x, rect.y, rect.width, rect.height].flatMap { big(UInt16($0)) }
  }

  private static func number(_ bytes: some Collection<UInt8>) -> Int {
    bytes.reduce(0) { $0 << 8 | Int($1) }
  }

  // MARK: Listening

  /// Whether something comes within the time.
  func hasMore(within milliseconds: Int32) -> Bool {
    if !buffer.isEmpty { return true }
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
    return poll(&watched, 1, milliseconds) == 1
  }

  func read(_ count: Int, milliseconds: Int32 = 20000) throws -> [UInt8] {
    while buffer.count < count {
      var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      guard poll(&watched, 1, milliseconds) == 1 else { throw Failure(description: "nothing came") }
      let part = try descriptor.read(upTo: bytesPerMillisecond.map { $0 * 10 } ?? 1 << 20)
      if bytesPerMillisecond != nil { pause(milliseconds: 10) }
      guard !part.isEmpty else { throw Failure(description: "the server hung up") }
      received += part.count
      buffer += part
    }
    defer { buffer.removeFirst(count) }
    return Array(buffer[..<count])
  }

  /// Whether the server closes the connection within the time; what comes before
  /// is thrown away.
  func isClosed(within milliseconds: Int32) -> Bool {
    let deadline = MonotonicClock.now + UInt64(milliseconds) * 1_000_000
    while MonotonicClock.now < deadline {
      var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      guard poll(&watched, 1, 50) == 1 else { continue }
      guard let part = try? descriptor.read(upTo: 1 << 20), !part.isEmpty else { return true }
    }
    return false
  }

  func next() throws -> Event {
    let type = try read(1)[0]
    switch type {
    case 0:
      _ = try read(1)
      let count = Self.number(try read(2))
      var rectangles: [Rectangle] = []
      while rectangles.count < count {
        let rectangle = try nextRectangle()
        if rectangle.encoding == -224 { break }
        rectangles.append(rectangle)
      }
      return .update(rectangles)
    case 2: return .bell
    case 3:
      _ = try read(3)
      let length = Int(Int32(truncatingIfNeeded: Self.number(try read(4))))
      return .cutText(try read(abs(length)))
    case 150: return .endOfContinuousUpdates
    case 248:
      let header = try read(8)
      return .fence(
        flags: UInt32(Self.number(header[3..<7])), payload: try read(Int(header[7])))
    case 250: return .xvp(code: try read(3)[2])
    default: throw Failure(description: "message type \(type)")
    }
  }

  /// Events until one satisfies `wanted`; that one is returned.
  func next(where wanted: (Event) -> Bool) throws -> Event {
    while true {
      let event = try next()
      if wanted(event) { return event }
    }
  }

  /// Requests and takes updates until `condition` holds.
  func update(until condition: () -> Bool) throws {
    while !condition() {
      try request()
      _ = try next { if case .update = $0 { true } else { false } }
    }
  }

  // MARK: Rectangles

  private func nextRectangle() throws -> Rectangle {
    let header = try read(12)
    let field = { (index: Int) in Int(header[index]) << 8 | Int(header[index + 1]) }
    let rect = Rect(x: field(0), y: field(2), width: field(4), height: field(6))
    let encoding = Int32(truncatingIfNeeded: Self.number(header[8...]))
    var result = Rectangle(rect: rect, encoding: encoding)
    switch encoding {
    case 0: try readRaw(rect)
    case 1:
      let source = try read(4)
      copy(
        rect, Int(source[0]) << 8 | Int(source[1]), Int(source[2]) << 8 | Int(source[3]))
    case 5: try readHextile(rect)
    case 7: try skipTight(rect)
    case 16: result.payload = try read(Self.number(try read(4)))
    case -223: resize(rect.width, rect.height)
    case -308:
      let count = Int(try read(4)[0])
      result.payload = try read(16 * count)
      if rect.y == 0 { resize(rect.width, rect.height) }
    case -261: result.payload = try read(1)
    case -307: result.payload = try read(Self.number(try read(4)))
    case -239:
      result.payload = try read(
        rect.width * rect.height * 4 + (rect.width + 7) / 8 * rect.height)
    case -258, -224: break
    default: throw Failure(description: "encoding \(encoding)")
    }
    return result
  }

  private func resize(_ width: Int, _ height: Int) {
    guard width != self.width || height != self.height else { return }
    (self.width, self.height) = (width, height)
    pixels = [UInt32](repeating: 0, count: width * height)
  }

  func pixel(_ x: Int, _ y: Int) -> UInt32 { pixels[y * width + x] & 0xFF_FFFF }

  private func readPixel(_ bytes: [UInt8], _ index: Int) -> UInt32 {
    UInt32(bytes[index]) | UInt32(bytes[index + 1]) << 8 | UInt32(bytes[index + 2]) << 16
  }

  private func fill(_ rect: Rect, _ value: UInt32) {
    for y in rect.y..<(rect.y + rect.height) {
      for x in rect.x..<(rect.x + rect.width) { pixels[y * width + x] = value }
    }
  }

  private func readRaw(_ rect: Rect) throws {
    let bytes = try read(rect.width * rect.height * 4)
    var index = 0
    for y in rect.y..<(rect.y + rect.height) {
      for x in rect.x..<(rect.x + rect.width) {
        pixels[y * width + x] = readPixel(bytes, index)
        index += 4
      }
    }
  }

  private func copy(_ rect: Rect, _ fromX: Int, _ fromY: Int) {
    let old = pixels
    for y in 0..<rect.height {
      for x in 0..<rect.width {
        pixels[(rect.y + y) * width + rect.x + x] = old[(fromY + y) * width + fromX + x]
      }
    }
  }

  /// rfbproto, Tight encoding: what of it is there, not what it says.
  private func skipTight(_ rect: Rect) throws {
    let control = try read(1)[0] >> 4
    switch control {
    case 8: _ = try read(3)
    case 9: _ = try read(try readCompactLength())
    case 0..<8:
      var bits = 24
      if control & 4 != 0 {
        switch try read(1)[0] {
        case 0, 2: break
        case 1:
          let colours = Int(try read(1)[0]) + 1
          _ = try read(colours * 3)
          bits = colours == 2 ? 1 : 8
        case let filter: throw Failure(description: "Tight filter \(filter)")
        }
      }
      let size = (rect.width * bits + 7) / 8 * rect.height
      _ = try read(size < 12 ? size : try readCompactLength())
    default: throw Failure(description: "Tight control \(control)")
    }
  }

  private func readCompactLength() throws -> Int {
    var length = 0
    for shift in [0, 7, 14] {
      let byte = Int(try read(1)[0])
      length |= (shift == 14 ? byte : byte & 0x7F) << shift
      if byte & 0x80 == 0 { break }
    }
    return length
  }

  private func readHextile(_ rect: Rect) throws {
    var background: UInt32 = 0
    var foreground: UInt32 = 0
    for top in stride(from: 0, to: rect.height, by: 16) {
      for left in stride(from: 0, to: rect.width, by: 16) {
        let tile = Rect(
          x: rect.x + left, y: rect.y + top, width: min(16, rect.width - left),
          height: min(16, rect.height - top))
        let flags = try read(1)[0]
        if flags & 1 != 0 {
          try readRaw(tile)
          continue
        }
        if flags & 2 != 0 { background = readPixel(try read(4), 0) }
        if flags & 4 != 0 { foreground = readPixel(try read(4), 0) }
        fill(tile, background)
        guard flags & 8 != 0 else { continue }
        for _ in 0..<(try read(1)[0]) {
          let colour = flags & 16 != 0 ? readPixel(try read(4), 0) : foreground
          let place = try read(2)
          fill(
            Rect(
              x: tile.x + Int(place[0] >> 4), y: tile.y + Int(place[0] & 15),
              width: Int(place[1] >> 4) + 1, height: Int(place[1] & 15) + 1), colour)
        }
      }
    }
  }
}

/// A session over a socket pair, and both of its ends.
struct Connection {
  let machine: FakeMachine
  let session: ViewerSession
  let viewer: TestViewer
  let events: Guarded<[ViewerEvent]>

  init(
    _ scanout: Scanout?, machine: FakeMachine? = nil, attached: Bool = true,
    freshness: UInt64? = nil, farewell: ClosedRange<UInt64>? = nil
  ) throws {
    let machine = try machine ?? FakeMachine()
    if let scanout { machine.server.publish(scanout) }
    let (mine, theirs) = try UnixSocket.pair(kind: .stream)
    let events = Guarded<[ViewerEvent]>([])
    var configuration = ViewerConfiguration()
    configuration.name = "test desk"
    // Its picture is there: a busy host must not make the viewer start without it.
    if scanout != nil { configuration.introductionTime = 20_000_000_000 }
    if let freshness { configuration.freshness = freshness }
    if let farewell { configuration.farewellTime = farewell }
    session = try ViewerSession(
      client: theirs.descriptor, configuration: configuration,
      link: attached ? try machine.server.connect() : nil
    ) { event in events.change { $0.append(event) } }
    (self.machine, self.events) = (machine, events)
    viewer = TestViewer(mine.descriptor)
  }

  /// Waits for an event of the session (20 s at most).
  func wait(for wanted: (ViewerEvent) -> Bool) -> Bool {
    let deadline = MonotonicClock.now + 20_000_000_000
    while !events.withLock({ $0.contains(where: wanted) }) {
      guard MonotonicClock.now < deadline else { return false }
      pause(milliseconds: 2)
    }
    return true
  }

  /// Whether the viewer's picture is the machine's.
  func isExact(_ scanout: Scanout) -> Bool {
    guard viewer.width == scanout.width && viewer.height == scanout.height else { return false }
    return machine.memory.bytes.withMemoryRebound(to: UInt32.self) { memory in
      for y in 0..<scanout.height {
        let row = (scanout.offset + y * scanout.stride) / 4
        for x in 0..<scanout.width
        where memory[row + x] & 0xFF_FFFF != viewer.pixels[y * scanout.width + x] & 0xFF_FFFF {
          return false
        }
      }
      return true
    }
  }
}
