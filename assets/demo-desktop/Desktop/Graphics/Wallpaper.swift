/// Mountain ridges at dusk, computed for the screen's size.
struct Wallpaper {
  private struct Ridge {
    let base: Float
    let amplitude: Float
    let scale: Float
    let seed: UInt32
    let top: Pixel
    let bottom: Pixel
  }

  private static let ridges = [
    Ridge(base: 0.62, amplitude: 0.20, scale: 3.1, seed: 11, top: 0x9A6A97, bottom: 0xE79C94),
    Ridge(base: 0.70, amplitude: 0.20, scale: 3.9, seed: 23, top: 0x75548B, bottom: 0xC27C92),
    Ridge(base: 0.78, amplitude: 0.19, scale: 4.6, seed: 5, top: 0x524278, bottom: 0x935F88),
    Ridge(base: 0.87, amplitude: 0.16, scale: 5.3, seed: 42, top: 0x35305F, bottom: 0x66497A),
    Ridge(base: 0.97, amplitude: 0.15, scale: 6.4, seed: 77, top: 0x1D1D42, bottom: 0x35305F),
  ]

  private static let sky: [(Float, Pixel)] = [
    (0.00, 0x1A2450), (0.22, 0x39397A), (0.42, 0x8A5795), (0.58, 0xE58A86), (0.70, 0xFFC893),
    (1.00, 0xFFD9A8),
  ]

  static func draw(on surface: Surface) {
    let width = surface.width
    let height = surface.height
    drawSky(on: surface)
    for ridge in ridges {
      var tops: [Float] = []
      for x in 0..<width {
        let position = Float(x) / Float(width) * ridge.scale
        let rise = Noise.ridged(position, seed: ridge.seed)
        tops.append((ridge.base - ridge.amplitude * rise) * Float(height))
      }
      let depth = Float(height) * (ridge.amplitude + 0.12)
      let start = Float(height) * (ridge.base - ridge.amplitude)
      let first = Int(tops.reduce(Float(height)) { min($0, $1) })
      let gradient = (0..<height).map { y in
        let way = max(0, min(1, (Float(y) - start) / depth))
        return Pixel.rgb(ridge.top).mixed(.rgb(ridge.bottom), UInt32(way * 255))
      }
      surface.shade(Rectangle(0, first, width, height - first)) { x, y in
        let coverage = Float(y) + 1 - tops[x]
        if coverage >= 1 { return gradient[y] }
        let below = surface[x, y]
        return coverage <= 0 ? below : below.mixed(gradient[y], UInt32(coverage * 255))
      }
    }
  }

  private static func drawSky(on surface: Surface) {
    let width = surface.width
    let height = surface.height
    let rows = (0..<height).map { color(at: Float($0) / Float(height)) }
    let sunX = Float(width) * 0.60
    let sunY = Float(height) * 0.47
    let reach = Float(height) * 0.62
    let radius = Float(height) * 0.052
    surface.shade(surface.bounds) { x, y in
      let dx = Float(x) - sunX
      let dy = Float(y) - sunY
      let distance = (dx * dx + dy * dy).squareRoot()
      let glow = max(0, 1 - distance / reach)
      let sky = rows[y].mixed(.rgb(0xFFD9A0), UInt32(glow * glow * 150))
      let edge = max(0, min(1, radius - distance + 0.5))
      return edge == 0 ? sky : sky.mixed(.rgb(0xFFF3D6), UInt32(edge * 255))
    }
    drawStars(on: surface)
  }

  private static func drawStars(on surface: Surface) {
    for index: UInt32 in 0..<90 {
      let x = Int(Noise.hash(index &* 3 &+ 1) >> 8) % surface.width
      let y = Int(Noise.hash(index &* 3 &+ 2) >> 8) % max(1, surface.height * 3 / 10)
      let fade = 200 - 200 * y / max(1, surface.height * 3 / 10)
      let brightness = Noise.hash(index &* 3) >> 24 &* UInt32(fade) >> 8
      surface.blend(Rectangle(x, y, 1, 1), .rgb(0xFFFFFF)) { _, _ in brightness }
    }
  }

  private static func color(at way: Float) -> Pixel {
    var previous = sky[0]
    for stop in sky {
      if way <= stop.0 {
        let span = max(0.0001, stop.0 - previous.0)
        let part = max(0, min(1, (way - previous.0) / span))
        return Pixel.rgb(previous.1).mixed(.rgb(stop.1), UInt32(part * 255))
      }
      previous = stop
    }
    return .rgb(previous.1)
  }
}

/// Smooth, repeatable randomness.
enum Noise {
  static func hash(_ value: UInt32) -> UInt32 {
    var x = value &* 0x9E37_79B1
    x = (x ^ x >> 15) &* 0x85EB_CA77
    x = (x ^ x >> 13) &* 0xC2B2_AE3D
    return x ^ x >> 16
  }

  /// Value noise in one dimension, 0…1.
  static func value(_ position: Float, seed: UInt32) -> Float {
    let cell = UInt32(max(0, position))
    let part = position - Float(cell)
    let smooth = part * part * (3 - 2 * part)
    let left = Float(hash(cell &+ seed &* 7919) >> 8) / 16_777_216
    let right = Float(hash(cell &+ 1 &+ seed &* 7919) >> 8) / 16_777_216
    return left + (right - left) * smooth
  }

  /// A sum of octaves folded into ridges, 0…1.
  static func ridged(_ position: Float, seed: UInt32) -> Float {
    var sum: Float = 0
    var weight: Float = 0.62
    var scale: Float = 1
    for octave: UInt32 in 0..<5 {
      let sample = value(position * scale + 3, seed: seed &+ octave &* 101)
      let folded = 1 - abs(2 * sample - 1)
      sum += weight * (octave < 2 ? sample : folded * 0.9)
      weight *= 0.40
      scale *= 2.17
    }
    return min(1, sum)
  }
}
