import LinuxSystem

/// Opens images that somebody made with bad intentions, and makes requests of them. Shared
/// by the fuzz target and the tests.
package enum Qcow2Fuzzing {
  private static let limit = 8 << 20
  private static let base = [UInt8](repeating: 0xBA, count: 100_000)

  /// The first byte chooses an image and how many changes are made to it, which follow, four
  /// bytes each; with the highest bit set, the rest is an image of its own.
  ///
  /// - Returns: `false` when an image that nobody changed was damaged, or reads other data
  ///   than was written.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func half() -> Int { Int(next()) << 8 | Int(next()) }
    let choice = next()
    if choice & 0x80 != 0 {
      let requests = Array(rest.suffix(64))
      open(Array(rest), requests[...])
      return true
    }
    guard var image = try? template(choice) else { return false }
    let changes = Int(next())
    for _ in 0..<changes {
      // Tables are what matters; they are at the beginning.
      let place = half() % min(image.count, 1 << 16)
      let value = next()
      image[place] = next() & 1 == 0 ? value : image[place] ^ (1 << (value & 7))
    }
    guard changes == 0 else {
      open(image, rest)
      return true
    }
    return drive(image, rest)
  }

  /// A small image with a bit of everything.
  private static func template(_ choice: UInt8) throws -> [UInt8] {
    let size = [512, 1024, 4096, 65536][Int(choice & 3)]
    let isVersion3 = choice & 4 != 0
    let options = Qcow2Options(
      byteCount: 300_032, clusterSize: size, version: isVersion3 ? 3 : 2,
      refcountBits: isVersion3 ? 1 << (Int(choice >> 3 & 3) * 2) : 16,
      hasLazyRefcounts: isVersion3 && choice & 0x20 != 0,
      compression: isVersion3 && choice & 0x40 != 0 ? .zstd : .zlib)
    let storage = MemoryStorage(limit: limit)
    try Qcow2Image.format(storage, options, path: "template")
    let image = try Qcow2Image(path: "template", storage: storage, isReadOnly: false)
    try image.write([UInt8](repeating: 0x11, count: 3000), at: 700)
    try image.writeZeroes(offset: 131_072, count: 65536, mayDiscard: true)
    let text = Scratch(size)
    try image.writeCompressed(UnsafeRawBufferPointer(text.bytes), offset: 196_608)
    try image.close()
    return storage.contents
  }

  /// Whatever happens is fine, as long as it ends.
  private static func open(_ bytes: [UInt8], _ requests: ArraySlice<UInt8>) {
    for isReadOnly in [true, false] {
      let storage = MemoryStorage(bytes, limit: limit)
      guard
        let layer = try? RawLayer(path: "base", storage: MemoryStorage(base, limit: base.count)),
        let image = try? Qcow2Image(
          path: "image", storage: storage, isReadOnly: isReadOnly, backing: layer)
      else { continue }
      _ = try? image.snapshots()
      var rest = requests
      for _ in 0..<64 where !rest.isEmpty {
        request(image, &rest, model: nil)
      }
      _ = try? image.check()
      if !isReadOnly { try? image.repairCounts() }
      try? image.close()
    }
  }

  /// Requests to an image that is sound.
  private static func drive(_ bytes: [UInt8], _ requests: ArraySlice<UInt8>) -> Bool {
    let storage = MemoryStorage(bytes, limit: limit)
    guard let image = try? Qcow2Image(path: "image", storage: storage, isReadOnly: false),
      let start = try? image.read(Int(image.byteCount), at: 0)
    else { return false }
    let model = Model(start)
    var rest = requests
    for _ in 0..<256 where !rest.isEmpty {
      guard request(image, &rest, model: model) else { return false }
    }
    guard (try? image.close()) != nil,
      let again = try? Qcow2Image(path: "image", storage: storage, isReadOnly: true),
      let contents = try? again.read(model.bytes.count, at: 0), model.matches(contents),
      let check = try? again.check()
    else { return false }
    return check.isClean
  }

  /// What the disk must read as.
  private final class Model {
    private(set) var bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func set(_ range: Range<Int>, _ value: UInt8) {
      bytes.replaceSubrange(range, with: repeatElement(value, count: range.count))
    }

    /// What was discarded may be anything, but the same from then on.
    func adopt(_ contents: [UInt8], at offset: Int) {
      bytes.replaceSubrange(offset..<offset + contents.count, with: contents)
    }

    func matches(_ contents: [UInt8], at offset: Int = 0) -> Bool {
      Array(bytes[offset..<offset + contents.count]) == contents
    }
  }

  @discardableResult
  private static func request(
    _ image: Qcow2Image, _ rest: inout ArraySlice<UInt8>, model: Model?
  ) -> Bool {
    func next() -> Int { Int(rest.popFirst() ?? 0) }
    let operation = next()
    let size = Int(clamping: min(image.byteCount, 1 << 30))
    guard size > 0 else { return true }
    let offset = (next() << 16 | next() << 8 | next()) % size
    let count = min((next() << 8 | next()) * (operation & 0x80 == 0 ? 1 : 8), size - offset)
    let (place, range) = (UInt64(offset), offset..<offset + count)
    do {
      switch operation & 7 {
      case 0, 1:
        let value = UInt8(truncatingIfNeeded: operation >> 3 | 1)
        try image.write([UInt8](repeating: value, count: count), at: place)
        model?.set(range, value)
      case 2:
        try image.discard(offset: place, count: UInt64(count))
        model?.adopt(try image.read(count, at: place), at: offset)
      case 3, 4:
        try image.writeZeroes(
          offset: place, count: UInt64(count), mayDiscard: operation & 8 != 0)
        model?.set(range, 0)
      case 5: try image.flush()
      default:
        let bytes = try image.read(count, at: place)
        return model?.matches(bytes, at: offset) ?? true
      }
    } catch {
      return model == nil
    }
    return true
  }
}
