import Disk
import LinuxSystem
import TestSupport
import Testing

@Suite("qcow2 overlays", .needs("qemu-img", "qemu-io"))
struct ChainTests {
  /// A base and an overlay with something of its own, larger than its base.
  private func chain(
    _ format: ImageFormat, version: UInt32 = 3, using generator: inout SeededGenerator
  ) throws -> (ImageBench, [UInt8]) {
    let bench = try ImageBench()
    var model = [UInt8].random(1_500_160, using: &generator)
    model.replaceSubrange(400_000..<900_000, with: repeatElement(0, count: 500_000))
    try bench.directory.write(model, to: "base.raw")
    try bench.run("qemu-img convert -f raw -O \(format) base.raw base")
    model += [UInt8](repeating: 0, count: 2_000_384 - model.count)
    try bench.create(
      "disk",
      Qcow2Options(
        byteCount: UInt64(model.count), clusterSize: 4096, version: version,
        backing: .init("base", format)))
    let image = try bench.open("disk")
    for _ in 0..<40 {
      let offset = Int.random(in: 0..<model.count - 20_000, using: &generator)
      let count = Int.random(in: 1...20_000, using: &generator)
      let range = offset..<offset + count
      if Bool.random(using: &generator) {
        let bytes = [UInt8].random(count, using: &generator)
        try image.write(bytes, at: UInt64(offset))
        model.replaceSubrange(range, with: bytes)
      } else {
        try image.writeZeroes(offset: UInt64(offset), count: UInt64(count), mayDiscard: true)
        model.replaceSubrange(range, with: repeatElement(0, count: count))
      }
    }
    try image.close()
    return (bench, model)
  }

  @Test(
    "a flattened image needs no other, and reads as before", arguments: ImageFormat.allCases,
    [UInt32(2), 3])
  func flatten(format: ImageFormat, version: UInt32) throws {
    var generator = SeededGenerator(seed: 1)
    let (bench, model) = try chain(format, version: version, using: &generator)
    var last: (UInt64, UInt64) = (0, 0)
    try ChainOperation.flatten(bench.path("disk"), BackingPolicy()) { last = ($0, $1) }
    #expect(last == (UInt64(model.count), UInt64(model.count)))
    try bench.run("rm base")
    try bench.check("disk")
    #expect(try bench.contents("disk").difference(model) == nil)
    #expect(try bench.contents(ofOurs: "disk").difference(model) == nil)
    #expect(try !bench.run("qemu-img info disk").contains("backing"))
  }

  @Test("a rebased image reads as before, whatever the other one has")
  func rebase() throws {
    var generator = SeededGenerator(seed: 2)
    for version: UInt32 in [2, 3] {
      let (bench, model) = try chain(.qcow2, version: version, using: &generator)
      var other = [UInt8].random(1_900_032, using: &generator)
      other.replaceSubrange(0..<300_000, with: model[0..<300_000])
      try bench.directory.write(other, to: "other")
      try ChainOperation.rebase(
        bench.path("disk"), onto: .init("other", .raw), BackingPolicy())
      try bench.run("rm base")
      try bench.check("disk")
      #expect(try bench.contents("disk").difference(model) == nil)
      #expect(try bench.run("qemu-img info disk").contains("backing file: other"))
    }
  }

  @Test("a base that was moved is found again by an unsafe rebase")
  func unsafeRebase() throws {
    var generator = SeededGenerator(seed: 3)
    let (bench, model) = try chain(.raw, using: &generator)
    try bench.run("mkdir sub; mv base sub/moved")
    let error = #expect(throws: DiskError.self) { try bench.open("disk") }
    #expect(error?.kind == .backing)
    try ChainOperation.rebaseUnsafely(bench.path("disk"), onto: .init("sub/moved", .raw))
    try bench.check("disk")
    #expect(try bench.contents("disk").difference(model) == nil)
    #expect(try bench.contents(ofOurs: "disk").difference(model) == nil)
  }

  @Test(
    "what is committed is in the base, which grows for it", arguments: ImageFormat.allCases,
    [true, false])
  func commit(format: ImageFormat, empties: Bool) throws {
    var generator = SeededGenerator(seed: 4)
    let (bench, model) = try chain(format, using: &generator)
    try ChainOperation.commit(bench.path("disk"), BackingPolicy(), empties: empties)
    try bench.check("disk")
    if format == .qcow2 { try bench.check("base") }
    let base = format == .qcow2 ? try bench.contents("base") : try bench.directory.read("base")
    #expect(base.difference(model) == nil)
    #expect(try bench.contents("disk").difference(model) == nil)
    let image = try bench.open("disk", isReadOnly: true)
    #expect((try image.check().allocatedClusters == 0) == empties)
    try image.close()
  }

  @Test("a base that grows by a commit shows nothing of what it is itself based on")
  func commitOverLarger() throws {
    var generator = SeededGenerator(seed: 5)
    let bench = try ImageBench()
    let bottom = [UInt8].random(900_096, using: &generator)
    try bench.directory.write(bottom, to: "bottom")
    try bench.create(
      "middle",
      Qcow2Options(byteCount: 300_032, clusterSize: 4096, backing: .init("bottom", .raw)))
    try bench.create(
      "disk",
      Qcow2Options(byteCount: 800_256, clusterSize: 4096, backing: .init("middle", .qcow2)))
    let model = Array(bottom.prefix(300_032)) + [UInt8](repeating: 0, count: 800_256 - 300_032)
    #expect(try bench.contents(ofOurs: "disk").difference(model) == nil)
    try ChainOperation.commit(bench.path("disk"), BackingPolicy())
    try bench.check("middle")
    #expect(try bench.contents("middle").difference(model) == nil)
    #expect(try bench.contents("disk").difference(model) == nil)
  }

  @Test("an overlay has its base's size, and the base's bytes stay as they are")
  func overlay() throws {
    var generator = SeededGenerator(seed: 6)
    let bench = try ImageBench()
    let bytes = [UInt8].random(1_000_000, using: &generator)
    try bench.directory.write(bytes, to: "base")
    try Qcow2Image.createOverlay(
      bench.path("disk"), over: .init("base", .raw), BackingPolicy())
    let (first, second) = (try bench.open("disk"), try RawImageReader(bench.path("base")))
    #expect(first.byteCount == 1_000_448)
    try first.write([UInt8](repeating: 1, count: 5000), at: 999_000 - 4000)
    try first.close()
    #expect(second.bytes == bytes)
    #expect(try bench.directory.read("base") == bytes)
    try bench.check("disk")
  }

  private struct RawImageReader {
    let bytes: [UInt8]
    init(_ path: String) throws { bytes = try Files.read(path) }
  }

  @Test("a base is shared by readers, and an image has one writer")
  func locks() throws {
    let bench = try ImageBench()
    try bench.directory.write([UInt8](repeating: 7, count: 1 << 20), to: "base")
    for name in ["a", "b"] {
      try bench.create(name, Qcow2Options(byteCount: 1 << 20, backing: .init("base", .raw)))
    }
    let (first, second) = (try bench.open("a"), try bench.open("b"))
    for isReadOnly in [true, false] {
      let error = #expect(throws: DiskError.self) { try bench.open("a", isReadOnly: isReadOnly) }
      #expect(error?.kind == .inUse)
    }
    let error = #expect(throws: DiskError.self) {
      try ChainOperation.commit(bench.path("a"), BackingPolicy())
    }
    #expect(error?.kind == .inUse)
    try first.close()
    // The other overlay reads the base yet.
    #expect(throws: DiskError.self) {
      try ChainOperation.commit(bench.path("a"), BackingPolicy())
    }
    #expect(try second.read(1, at: 0) == [7])
    try second.close()
    try ChainOperation.commit(bench.path("a"), BackingPolicy())
  }

  @Test("bases are files of allowed directories, of a format that is said, in no circle")
  func policy() throws {
    let bench = try ImageBench()
    try bench.run(
      """
      mkdir in out; truncate -s 1M out/base in/base; ln -s ../out/base in/link
      for b in in/base ../out/base link $PWD/out/base; do :; done
      qemu-img create -q -f qcow2 -u -b base -F raw in/good 1M
      qemu-img create -q -f qcow2 -u -b ../out/base -F raw in/outside 1M
      qemu-img create -q -f qcow2 -u -b link -F raw in/link.qcow2 1M
      qemu-img create -q -f qcow2 -u -b nbd://host/disk -F raw in/network 1M
      qemu-img create -q -f qcow2 -u -b 'json:{"driver":"raw"}' -F raw in/json 1M
      qemu-img create -q -f qcow2 -u -b round -F qcow2 in/round 1M
      qemu-img create -q -f qcow2 -u -b nowhere -F raw in/missing 1M
      qemu-img create -q -f qcow2 -u -b base -F vmdk in/foreign 1M
      """)
    for (name, words) in [
      ("outside", "none of the directories"), ("link.qcow2", "none of the directories"),
      ("network", "bases are files here"), ("json", "bases are files here"),
      ("missing", "does not exist"), ("foreign", "another format"),
    ] {
      let error = #expect(throws: DiskError.self) { try bench.open("in/\(name)") }
      #expect(error?.kind == .backing)
      #expect(error?.description.contains(words) == true, "\(name): \(String(describing: error))")
    }
    #expect(throws: DiskError.self) { try bench.open("in/round") }
    let round = #expect(throws: DiskError.self) { try bench.open("in/round", isReadOnly: true) }
    #expect(round?.context.contains("based on itself") == true)
    try bench.open("in/good").close()
    let allowed = BackingPolicy(directories: [bench.path("out")], allowsOwnDirectory: false)
    try Qcow2Image.open(bench.path("in/outside"), isReadOnly: false, allowed).close()
    #expect(throws: DiskError.self) {
      try Qcow2Image.open(bench.path("in/good"), isReadOnly: false, allowed)
    }
    // An image of another format, and one that does not say which its base has.
    let raw = #expect(throws: DiskError.self) { try bench.open("in/base") }
    #expect(raw?.kind == .notAnImage)
    var bytes = try bench.directory.read("in/good")
    bytes[112] ^= 0x40
    try bench.directory.write(bytes, to: "in/good")
    let unsaid = #expect(throws: DiskError.self) { try bench.open("in/good") }
    #expect(unsaid?.context.contains("does not say which format") == true)
  }

  @Test("a chain that is too long is refused, and one of many layers is read")
  func layers() throws {
    let bench = try ImageBench()
    try bench.directory.write([UInt8](repeating: 9, count: 65536), to: "0")
    for layer in 1...65 {
      try bench.create(
        "\(layer)",
        Qcow2Options(
          byteCount: 65536, clusterSize: 4096,
          backing: .init("\(layer - 1)", layer == 1 ? .raw : .qcow2)))
    }
    let image = try bench.open("63")
    #expect(try image.read(65536, at: 0) == [UInt8](repeating: 9, count: 65536))
    try image.close()
    let error = #expect(throws: DiskError.self) { try bench.open("65") }
    #expect(error?.context.contains("more than 64 layers") == true)
  }
}
