import DeviceModel
import Display
import Testing

/// A region as a plain bitmap, the model that the real one is compared with.
private struct Bitmap: Equatable {
  static let side = 24
  var bits = [Bool](repeating: false, count: side * side)

  init() {}

  init(_ rect: Rect) {
    for y in 0..<Self.side {
      for x in 0..<Self.side {
        bits[y * Self.side + x] =
          x >= rect.x && x < rect.x + rect.width && y >= rect.y && y < rect.y + rect.height
      }
    }
  }

  init(_ region: Region) {
    for y in 0..<Self.side {
      for x in 0..<Self.side {
        bits[y * Self.side + x] = region.contains(x: x, y: y)
      }
    }
  }

  func combined(_ other: Bitmap, _ rule: (Bool, Bool) -> Bool) -> Bitmap {
    var result = self
    for index in bits.indices { result.bits[index] = rule(bits[index], other.bits[index]) }
    return result
  }
}

private func randomRect(_ generator: inout SeededGenerator) -> Rect {
  let x = Int.random(in: 0..<Bitmap.side, using: &generator)
  let y = Int.random(in: 0..<Bitmap.side, using: &generator)
  return Rect(
    x: x, y: y, width: Int.random(in: 0...(Bitmap.side - x), using: &generator),
    height: Int.random(in: 0...(Bitmap.side - y), using: &generator))
}

/// Random numbers that are the same in every run.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

@Suite("Regions")
struct RegionTests {
  @Test("union, intersection and difference agree with a bitmap", arguments: 0..<20)
  func algebra(seed: Int) {
    var generator = SeededGenerator(UInt64(seed))
    var region = Region()
    var model = Bitmap()
    for _ in 0..<30 {
      let rect = randomRect(&generator)
      switch Int.random(in: 0..<4, using: &generator) {
      case 0:
        region.formUnion(rect)
        model = model.combined(Bitmap(rect)) { $0 || $1 }
      case 1:
        region.subtract(rect)
        model = model.combined(Bitmap(rect)) { $0 && !$1 }
      case 2:
        let other = Region([rect, randomRect(&generator)])
        region = region.union(other)
        model = model.combined(Bitmap(other)) { $0 || $1 }
      default:
        let other = Region([rect, randomRect(&generator), randomRect(&generator)])
        region.formIntersection(other)
        model = model.combined(Bitmap(other)) { $0 && $1 }
      }
      #expect(Bitmap(region) == model)
      #expect(region.area == model.bits.filter { $0 }.count)
    }
  }

  @Test("rectangles are disjoint and make up the region")
  func rectangles() {
    var generator = SeededGenerator(7)
    let region = Region((0..<10).map { _ in randomRect(&generator) })
    var again = Region()
    for rect in region.rects {
      #expect(again.intersection(rect).isEmpty)
      again.formUnion(rect)
    }
    #expect(again == region)
    #expect(region.rects.count == region.rectCount)
  }

  @Test("a copy keeps its value when the original changes")
  func valueSemantics() {
    var region = Region(Rect(x: 0, y: 0, width: 4, height: 4))
    let copy = region
    region.translate(x: 10, y: 0)
    region.formUnion(Rect(x: 50, y: 50, width: 1, height: 1))
    #expect(copy == Region(Rect(x: 0, y: 0, width: 4, height: 4)))
    #expect(region.bounds == Rect(x: 10, y: 0, width: 41, height: 51))
  }

  @Test("a region united with and subtracted from itself is itself and nothing")
  func aliasing() {
    var region = Region([
      Rect(x: 0, y: 0, width: 4, height: 4), Rect(x: 8, y: 2, width: 4, height: 9),
    ])
    let copy = region
    region.formUnion(copy)
    #expect(region == copy)
    region.subtract(copy)
    #expect(region.isEmpty)
  }

  @Test("simplifying covers everything within the limit", arguments: [1, 5, 20, 400])
  func simplification(limit: Int) {
    var region = Region()
    for y in 0..<20 {
      for x in 0..<(y % 5) { region.formUnion(Rect(x: x * 9, y: y * 7, width: 4, height: 5)) }
    }
    let simple = region.simplified(toRects: limit)
    #expect(simple.rectCount <= limit)
    #expect(region.subtracting(simple).isEmpty)
    #expect(simple.bounds == region.bounds)
  }

  @Test("absurd rectangles neither trap nor grow without bound")
  func extremes() {
    var region = Region(Rect(x: .min, y: .max, width: .max, height: .max))
    region.formUnion(Rect(x: -5, y: -5, width: -3, height: 7))
    region.translate(x: .max, y: .min)
    #expect(region.rectCount <= 1)
    #expect(
      Rect(x: .max, y: 0, width: .max, height: 4)
        .intersection(Rect(x: 0, y: 0, width: 3, height: 3)).isEmpty)
  }
}
