/// A region of 640×360 that changes like a video: soft shapes that drift, pulse and
/// shade into each other, above a desktop that stands still.
final class VideoScene: Scene {
  private static let size = (width: 640, height: 360)
  private let wave: [Int] = (0..<1024).map { step in
    // A sine by Bhaskara's approximation, 0…255 over 1024 steps.
    let half = Float(step % 512) / 512 * 180
    let value = 4 * half * (180 - half) / (40500 - half * (180 - half))
    return Int(128 + (step < 512 ? 127 : -127) * value)
  }
  private lazy var frame = Surface(width: Self.size.width, height: Self.size.height)

  override func tick(_ count: Int) {
    let wave = wave
    let t = count * 6
    let columns = (0..<Self.size.width).map { wave[($0 * 3 / 2 + t) & 1023] }
    let rows = (0..<Self.size.height).map { wave[($0 * 2 - t / 2) & 1023] }
    frame.shade(frame.bounds) { x, y in
      let slant = wave[(x + y + t * 2) & 1023]
      let swirl = wave[(columns[x] + rows[y] + slant) & 1023]
      let red = UInt32((columns[x] + swirl) >> 1)
      let green = UInt32((rows[y] + slant) >> 1)
      let blue = UInt32((swirl + slant + rows[y]) / 3)
      return .rgb(red << 16 | green << 8 | blue)
    }
    let x = 320 + (wave[(t * 2) & 1023] - 128) * 2
    let y = 180 + wave[(t * 3) & 1023] - 128
    frame.disc(x: x * 16, y: y * 16, radius: 44 * 16, .rgb(0xFFF1D0))
    let left = (screen.width - Self.size.width) / 2
    let top = (screen.height - Self.size.height) / 2
    screen.copy(
      frame, from: Point(x: 0, y: 0),
      to: Rectangle(left, top, Self.size.width, Self.size.height))
  }

  override func start() { session.screen.isPointerVisible = false }

  override func stop() {
    super.stop()
  }
}
