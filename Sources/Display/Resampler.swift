import DeviceModel

/// Turns sound of one rate into another's, frame after frame: as many come out as the
/// rates say, over any length of time. Where both are the same it passes unchanged.
///
/// Between frames runs a cubic through the four around it (Catmull and Rom's); rates of
/// twice the other's and more are brought down by means of neighbours first.
public struct Resampler: Sendable {
  private typealias Point = SIMD2<Float>

  /// Frames a second that go in, and that come out.
  public let rate: Int
  public let output: Int
  /// How many frames make one.
  private let group: Int
  private var sum = Point.zero
  private var summed = 0
  /// The last four, oldest first.
  private var around = [Point](repeating: .zero, count: 4)
  /// The place between the middle two, of `output * group` from one to the other.
  private var phase = 0

  public init(from rate: Int, to output: Int) {
    self.rate = max(rate, 1)
    self.output = max(output, 1)
    group = max(self.rate / self.output, 1)
  }

  public mutating func convert(_ frames: [AudioFrame]) -> [AudioFrame] {
    guard rate != output else { return frames }
    var converted: [AudioFrame] = []
    converted.reserveCapacity(frames.count * output / rate + 1)
    for frame in frames {
      sum += Point(Float(frame.left), Float(frame.right))
      summed += 1
      guard summed == group else { continue }
      around.removeFirst()
      around.append(sum / Float(group))
      sum = .zero
      summed = 0
      let interval = output * group
      while phase < interval {
        converted.append(between(Float(phase) / Float(interval)))
        phase += rate
      }
      phase -= interval
    }
    return converted
  }

  private func between(_ place: Float) -> AudioFrame {
    let (a, b, c, d) = (around[0], around[1], around[2], around[3])
    let cubic = (d - a) * 0.5 + (b - c) * 1.5
    let square = a - b * 2.5 + c * 2 - d * 0.5
    let slope = (c - a) * 0.5
    let point = ((cubic * place + square) * place + slope) * place + b
    return AudioFrame(left: Self.sample(point.x), right: Self.sample(point.y))
  }

  private static func sample(_ value: Float) -> Int16 {
    Int16(min(max(value.rounded(), -32768), 32767))
  }
}
