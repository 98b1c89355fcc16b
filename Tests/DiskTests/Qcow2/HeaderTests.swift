import Disk
import TestSupport
import Testing

/// The header of a version 3 image of 1 GiB, with extensions and name where given.
private func header(
  _ change: (inout [UInt8]) -> Void = { _ in }, extensions: [(UInt32, [UInt8])] = []
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 65536)
  bytes.set(UInt32(0x5146_49FB), at: 0)
  bytes.set(UInt32(3), at: 4)
  bytes.set(UInt32(16), at: 20)
  bytes.set(UInt64(1 << 30), at: 24)
  bytes.set(UInt32(2), at: 36)
  bytes.set(UInt64(0x30000), at: 40)
  bytes.set(UInt64(0x10000), at: 48)
  bytes.set(UInt32(1), at: 56)
  bytes.set(UInt32(4), at: 96)
  bytes.set(UInt32(104), at: 100)
  var place = 104
  for (kind, data) in extensions {
    bytes.set(kind, at: place)
    bytes.set(UInt32(data.count), at: place + 4)
    bytes.replaceSubrange(place + 8..<place + 8 + data.count, with: data)
    place += 8 + (data.count + 7) / 8 * 8
  }
  change(&bytes)
  return bytes
}

extension [UInt8] {
  fileprivate mutating func set<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
    let bytes = Swift.withUnsafeBytes(of: value.bigEndian) { Array($0) }
    replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }
}

@Suite("qcow2 headers and tables")
struct HeaderTests {
  @Test("a header is read field by field")
  func fields() throws {
    let name = Array("base.raw".utf8)
    let parsed = try Qcow2Header(
      parsing: header(
        {
          $0.set(UInt64(4096), at: 8)
          $0.set(UInt32(name.count), at: 16)
          $0.replaceSubrange(4096..<4096 + name.count, with: name)
          $0.set(UInt64(1), at: 80)
        }, extensions: [(0xE279_2ACA, Array("raw".utf8)), (0x1234_5678, [1, 2, 3])]))
    #expect(parsed.version == 3 && parsed.clusterSize == 65536 && parsed.size == 1 << 30)
    #expect(parsed.l1Count == 2 && parsed.l1Offset == 0x30000)
    #expect(parsed.refcountTableOffset == 0x10000 && parsed.refcountTableClusters == 1)
    #expect(parsed.backingName == name && parsed.backingFormat == "raw")
    #expect(parsed.hasLazyRefcounts && !parsed.isDirty && !parsed.isCorrupt)
    #expect(
      parsed.extensions.contains(HeaderExtension(kind: 0x1234_5678, data: [1, 2, 3])))
  }

  private static let names: [UInt8] = {
    var entry = [UInt8](repeating: 0, count: 48)
    (entry[0], entry[1]) = (0, 40)
    entry.replaceSubrange(2..<2 + 9, with: Array("time warp".utf8))
    return entry
  }()

  @Test("what an image needs and is not done here is refused by its name")
  func features() throws {
    for (bit, word) in [
      (2, "external data file"), (4, "extended L2 entries"), (40, "time warp"),
      (41, "unnamed feature of bit 41"),
    ] {
      let error = #expect(throws: FormatProblem.self) {
        try Qcow2Header(
          parsing: header(
            { $0.set(UInt64(1) << UInt64(bit), at: 72) },
            extensions: [(0x6803_F857, Self.names)]))
      }
      #expect(error?.kind == .unsupported)
      #expect(error?.text.contains(word) == true)
    }
  }

  @Test(
    "a header that cannot be is refused",
    arguments: [
      (0, UInt32(0), DiskError.Kind.notAnImage), (4, 1, .unsupported), (4, 4, .unsupported),
      (20, 8, .corrupt), (20, 22, .corrupt), (20, .max, .corrupt), (32, 1, .unsupported),
      (32, 2, .unsupported), (96, 7, .corrupt), (100, 103, .corrupt), (100, 96, .corrupt),
      (100, 1 << 20, .corrupt), (76, 8, .corrupt), (92, 1, .corrupt), (8, 1, .corrupt),
      (12, 50, .corrupt), (12, 65536, .corrupt), (104, 9, .corrupt),
    ])
  func refusals(offset: Int, value: UInt32, kind: DiskError.Kind) {
    let error = #expect(throws: FormatProblem.self) {
      try Qcow2Header(
        parsing: header {
          // An extension that would leave the cluster, where its kind is changed.
          if offset == 104 { $0.set(UInt32(70000), at: 108) }
          $0.set(value, at: offset)
        })
    }
    #expect(error?.kind == kind)
  }

  @Test("bytes at random are no header, and do no harm")
  func random() {
    var generator = SeededGenerator(seed: 3)
    let sound = header(extensions: [(0xE279_2ACA, Array("raw".utf8)), (0x6803_F857, Self.names)])
    var accepted = 0
    for _ in 0..<3000 {
      var bytes = sound
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        bytes[Int.random(in: 0..<200, using: &generator)] = .random(in: 0...255, using: &generator)
      }
      if (try? Qcow2Header(parsing: bytes)) != nil { accepted += 1 }
    }
    #expect((500..<2900).contains(accepted))
  }

  @Test("reference counts of every width are read as they were written", arguments: 0...6)
  func refcounts(order: Int) {
    let count = 512 * 8 >> order
    let most: UInt64 = order == 6 ? .max : (1 << (1 << UInt64(order))) - 1
    var block = [UInt8](repeating: 0, count: 512)
    var generator = SeededGenerator(seed: UInt64(order))
    let values = (0..<count).map { _ in generator.next() & most }
    for index in values.indices.shuffled(using: &generator) {
      block.withUnsafeMutableBytes {
        RefcountCodec.set($0, index, order: order, to: values[index])
      }
    }
    let read = block.withUnsafeBytes { buffer in
      values.indices.map { RefcountCodec.value(buffer, $0, order: order) }
    }
    #expect(read == values)
    // Bit 0 is the least significant one, and bytes are in big-endian order.
    block = [UInt8](repeating: 0, count: 512)
    block.withUnsafeMutableBytes { RefcountCodec.set($0, 1, order: order, to: 1) }
    let place = [0, 0, 0, 1, 3, 7, 15][order]
    #expect(block[place] == [2, 4, 16, 1, 1, 1, 1][order])
  }

  @Test("an entry of an L2 table says one thing only, or is refused", arguments: [9, 12, 16, 21])
  func entries(clusterBits: Int) throws {
    let geometry = Qcow2Geometry(clusterBits: clusterBits, refcountOrder: 4, isVersion3: true)
    let host = UInt64(5) << UInt64(clusterBits)
    let mappings: [ClusterMapping] = [
      .unallocated, .zero(host: nil, isOwn: false), .zero(host: host, isOwn: true),
      .data(host: host, isOwn: true), .data(host: host, isOwn: false),
      .compressed(host: host + 100, count: 412), .compressed(host: host + 512, count: 1024),
    ]
    for mapping in mappings {
      #expect(try ClusterMapping(mapping.entry(geometry), geometry) == mapping)
    }
    for entry: UInt64 in [
      1 << 63, 1 << 56 | host, host | 2, host | 256, 3 << 62 | host, 1 << 62, host | 1 << 61,
    ] {
      #expect(throws: FormatProblem.self) { try ClusterMapping(entry, geometry) }
    }
    if clusterBits > 9 {
      #expect(throws: FormatProblem.self) { try ClusterMapping(host + 512, geometry) }
    }
    let version2 = Qcow2Geometry(clusterBits: clusterBits, refcountOrder: 4, isVersion3: false)
    #expect(throws: FormatProblem.self) { try ClusterMapping(1, version2) }
  }

  @Test("what was compressed is what comes out, with anything behind it")
  func compression() throws {
    var generator = SeededGenerator(seed: 8)
    for kind in [Qcow2Header.Compression.zlib, .zstd] {
      let bytes = (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 100) }
      let small = try #require(bytes.withUnsafeBytes { ClusterCompression.compress($0, kind) })
      #expect(small.count < 8192)
      var output = [UInt8](repeating: 0, count: 65536)
      func decompress(_ input: [UInt8]) -> Bool {
        input.withUnsafeBytes { source in
          output.withUnsafeMutableBytes { target in
            ClusterCompression.decompress(source, into: target, kind)
          }
        }
      }
      #expect(decompress(small + [UInt8].random(300, using: &generator)))
      #expect(output == bytes)
      #expect(!decompress(Array(small.dropLast(10))))
      #expect(!decompress([UInt8].random(3000, using: &generator)))
      let noise = [UInt8].random(4096, using: &generator)
      #expect(noise.withUnsafeBytes { ClusterCompression.compress($0, kind) } == nil)
    }
  }
}
