import DeviceModel
import Display
import Testing
import VNCServer

/// A picture to compare a frame with.
private struct Picture: PixelSource {
  var width: Int
  var height: Int
  var pixels: [UInt32]

  init(width: Int, height: Int, seed: UInt32 = 1) {
    (self.width, self.height) = (width, height)
    var noise = seed
    pixels = (0..<(width * height)).map { _ in
      noise = noise &* 1_664_525 &+ 1_013_904_223
      return noise >> 8 & 0xF0F0F0
    }
  }

  func withRows(_ rect: Rect, _ body: (UnsafePointer<UInt32>, _ stride: Int) -> Void) {
    pixels.withUnsafeBufferPointer { buffer in
      if let base = buffer.baseAddress { body(base + rect.y * width + rect.x, width) }
    }
  }

  /// The picture with `area`'s pixels moved.
  func moving(_ area: Rect, _ dx: Int, _ dy: Int) -> Picture {
    var result = self
    for y in area.y..<(area.y + area.height) {
      for x in area.x..<(area.x + area.width) {
        result.pixels[(y + dy) * width + x + dx] = pixels[y * width + x]
      }
    }
    return result
  }
}

@Suite("Copies")
struct CopyDetectorTests {
  private func frame(_ picture: Picture) -> Frame {
    let frame = Frame(width: picture.width, height: picture.height)
    _ = frame.update(from: picture, damage: Region(frame.bounds))
    return frame
  }

  private func isEqual(_ frame: Frame, _ picture: Picture) -> Bool {
    frame.update(from: picture, damage: Region(frame.bounds)).isEmpty
  }

  @Test(
    "scrolls and drags are found and lead to the new picture",
    arguments: [
      (0, -16), (0, 13), (0, -100), (24, 0), (-7, 0), (10, 20), (-31, 9), (40, -60), (-3, -3),
    ])
  func moves(dx: Int, dy: Int) throws {
    let before = Picture(width: 640, height: 480)
    let after = before.moving(Rect(x: 128, y: 112, width: 384, height: 256), dx, dy)
    let frame = frame(before)
    var detector = CopyDetector()
    let found = detector.move(
      frame, after, damage: Region(Rect(x: 60, y: 40, width: 540, height: 400)))
    let move = try #require(found)
    #expect(move.dx == dx && move.dy == dy)
    #expect(move.region.area > 384 * 256 / 3)
    frame.apply(move)
    let rest = frame.update(from: after, damage: Region(frame.bounds))
    #expect(rest.intersection(move.region).isEmpty)
    #expect(isEqual(frame, after))
  }

  @Test("a new picture is no move")
  func newPicture() {
    let frame = frame(Picture(width: 640, height: 480))
    var detector = CopyDetector()
    let move = detector.move(
      frame, Picture(width: 640, height: 480, seed: 9), damage: Region(frame.bounds))
    #expect(move == nil)
  }

  @Test("damage without change is no move")
  func noChange() {
    let picture = Picture(width: 320, height: 200)
    let frame = frame(picture)
    var detector = CopyDetector()
    let move = detector.move(frame, picture, damage: Region(frame.bounds))
    #expect(move == nil)
  }

  @Test("odd sizes and damage at the edges stay within the picture")
  func edges() {
    let before = Picture(width: 333, height: 211)
    let after = before.moving(Rect(x: 0, y: 10, width: 333, height: 201), 0, -10)
    let frame = frame(before)
    var detector = CopyDetector()
    if let move = detector.move(frame, after, damage: Region(frame.bounds)) { frame.apply(move) }
    _ = frame.update(from: after, damage: Region(frame.bounds))
    #expect(isEqual(frame, after))
  }

  @Test("a scroll reaches the viewer as CopyRect, and exactly")
  func onTheWire() throws {
    let size = scanout(640, 480)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([1, 0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(size) }
    for round in 1...5 {
      let before = connection.viewer.received
      for y in 0..<(480 - 16) {
        for x in 0..<640 {
          let value = connection.machine.pixel(size, x: x, y: y + 16)
          connection.machine.set(size, x: x, y: y, value)
        }
      }
      for x in 0..<640 {
        for y in 464..<480 {
          connection.machine.set(
            size, x: x, y: y, UInt32(x * 977 &+ y * 13 &+ round * 7) & 0xFFFFFF)
        }
      }
      connection.machine.server.publish(
        damage: Region(Rect(x: 0, y: 0, width: 640, height: 480)))
      var copies = 0
      while !connection.isExact(size) {
        try connection.viewer.request()
        guard case .update(let rects) = try connection.viewer.next() else { continue }
        copies += rects.filter { $0.encoding == 1 }.count
      }
      #expect(copies > 0)
      #expect(connection.viewer.received - before < 640 * 480 * 4 / 4)
    }
  }
}
