/// The header of a qcow2 image (docs/interop/qcow2, Header) and what follows it in the first
/// cluster.
package struct Qcow2Header: Equatable, Sendable {
  package static let magic: UInt32 = 0x5146_49FB

  package enum Incompatible {
    package static let dirty: UInt64 = 1 << 0
    package static let corrupt: UInt64 = 1 << 1
    package static let externalData: UInt64 = 1 << 2
    package static let compressionType: UInt64 = 1 << 3
    package static let extendedL2: UInt64 = 1 << 4
    static let supported = dirty | corrupt | compressionType
    static let names = [
      FeatureName(.incompatible, 0, "dirty bit"), FeatureName(.incompatible, 1, "corrupt bit"),
      FeatureName(.incompatible, 2, "external data file"),
      FeatureName(.incompatible, 3, "compression type"),
      FeatureName(.incompatible, 4, "extended L2 entries"),
    ]
  }

  package enum Compatible {
    package static let lazyRefcounts: UInt64 = 1 << 0
  }

  package enum Autoclear {
    package static let bitmaps: UInt64 = 1 << 0
  }

  /// How compressed clusters are compressed.
  package enum Compression: UInt8, Sendable {
    case zlib = 0
    case zstd = 1
  }

  /// What is larger is refused, as it is by QEMU.
  enum Limit {
    static let clusterBits: ClosedRange<UInt32> = 9...21
    static let refcountOrder: UInt32 = 6
    static let l1Bytes: UInt64 = 32 << 20
    static let refcountTableBytes: UInt64 = 8 << 20
    static let snapshots: UInt32 = 65536
    static let backingName: UInt32 = 1023
  }

  enum Size {
    static let version2 = 72
    static let version3 = 104
    static let ours = 112
  }

  package var version: UInt32
  package var backingName: [UInt8]?
  package var clusterBits: UInt32
  package var size: UInt64
  package var l1Count: UInt32
  package var l1Offset: UInt64
  package var refcountTableOffset: UInt64
  package var refcountTableClusters: UInt32
  package var snapshotCount: UInt32
  package var snapshotsOffset: UInt64
  package var incompatible: UInt64
  package var compatible: UInt64
  package var autoclear: UInt64
  package var refcountOrder: UInt32
  package var compression: Compression
  /// Fields behind the compression type that are not known here.
  package var additional: [UInt8]
  package var extensions: [HeaderExtension]
  /// Where the extensions end and where the name is, of a header that was read.
  var extensionsEnd = 0
  var backingNameOffset = 0

  package var clusterSize: Int { 1 << Int(clusterBits) }
  package var isDirty: Bool { incompatible & Incompatible.dirty != 0 }
  package var isCorrupt: Bool { incompatible & Incompatible.corrupt != 0 }
  package var hasLazyRefcounts: Bool { compatible & Compatible.lazyRefcounts != 0 }

  /// `nil` where the image does not say.
  package var backingFormat: String? {
    first(HeaderExtension.Kind.backingFormat).map { String(decoding: $0, as: UTF8.self) }
  }

  package var bitmaps: BitmapsExtension? {
    first(HeaderExtension.Kind.bitmaps).flatMap(BitmapsExtension.init)
  }

  func first(_ kind: UInt32) -> [UInt8]? { extensions.first { $0.kind == kind }?.data }

  /// Whether `bytes`, an image's beginning, is that of a qcow2 image.
  package static func isRecognised(_ bytes: [UInt8]) -> Bool {
    bytes.count >= 4 && bytes.number(UInt32.self, at: 0) == magic
  }
}

extension Qcow2Header {
  /// The size of clusters that the image whose beginning is `bytes` says it has.
  static func clusterSize(_ bytes: [UInt8]) throws(FormatProblem) -> Int {
    guard bytes.count >= Size.version2, isRecognised(bytes) else {
      throw FormatProblem(
        .notAnImage,
        "is not qcow2; a raw image is given with format=raw to --disk, and as raw:FILE to --over and "
          + "--onto; other 'carrel-vmm disk' commands are for qcow2 images")
    }
    let bits: UInt32 = bytes.number(at: 20)
    guard Limit.clusterBits.contains(bits) else {
      throw .corrupt("clusters of 2^\(bits) bytes, where 2^9 to 2^21 are possible")
    }
    return 1 << Int(bits)
  }

  /// - Parameter bytes: the first cluster, padded with zeros where the file is shorter.
  package init(parsing bytes: [UInt8]) throws(FormatProblem) {
    let clusterSize = try Self.clusterSize(bytes)
    version = bytes.number(at: 4)
    guard version == 2 || version == 3 else {
      throw FormatProblem(
        .unsupported, "is qcow2 of version \(version), where 2 and 3 are known; convert it")
    }
    guard bytes.count >= clusterSize else { throw .corrupt("it is shorter than its header") }
    clusterBits = bytes.number(at: 20)
    size = bytes.number(at: 24)
    let encryption: UInt32 = bytes.number(at: 32)
    guard encryption == 0 else {
      throw FormatProblem(
        .unsupported,
        "is encrypted (\(encryption == 1 ? "AES" : "LUKS")), which is not done here;"
          + " convert it with qemu-img convert")
    }
    l1Count = bytes.number(at: 36)
    l1Offset = bytes.number(at: 40)
    refcountTableOffset = bytes.number(at: 48)
    refcountTableClusters = bytes.number(at: 56)
    snapshotCount = bytes.number(at: 60)
    snapshotsOffset = bytes.number(at: 64)
    (incompatible, compatible, autoclear, refcountOrder) = (0, 0, 0, 4)
    (compression, additional, extensions) = (.zlib, [], [])
    var end = Size.version2
    if version >= 3 { end = try parseVersion3(bytes) }
    let nameOffset: UInt64 = bytes.number(at: 8)
    let limit = nameOffset == 0 ? clusterSize : Int(clamping: min(nameOffset, UInt64(clusterSize)))
    (extensions, extensionsEnd) = try HeaderExtension.parse(bytes, from: end, limit: limit)
    try checkFeatures()
    try parseBackingName(bytes, nameOffset)
  }

  private mutating func parseVersion3(_ bytes: [UInt8]) throws(FormatProblem) -> Int {
    incompatible = bytes.number(at: 72)
    compatible = bytes.number(at: 80)
    autoclear = bytes.number(at: 88)
    refcountOrder = bytes.number(at: 96)
    let length = Int(bytes.number(UInt32.self, at: 100))
    guard length >= Size.version3, length % 8 == 0, length <= clusterSize else {
      throw .corrupt("a header of \(length) bytes")
    }
    guard refcountOrder <= Limit.refcountOrder else {
      throw .corrupt("reference counts of 2^\(refcountOrder) bits, where 64 bits are the most")
    }
    let type = length > Size.version3 ? bytes[Size.version3] : 0
    let isTyped = incompatible & Incompatible.compressionType != 0
    guard isTyped == (type != 0) else {
      throw .corrupt("its compression type \(type) contradicts its features")
    }
    guard let compression = Compression(rawValue: type) else {
      throw FormatProblem(
        .unsupported, "is compressed in a way (\(type)) that is not known here; convert it")
    }
    self.compression = compression
    if length > Size.ours { additional = Array(bytes[Size.ours..<length]) }
    return length
  }

  /// "An implementation must fail to open an image if an unknown bit is set."
  private func checkFeatures() throws(FormatProblem) {
    let unknown = incompatible & ~Incompatible.supported
    guard unknown == 0 else {
      let stored = first(HeaderExtension.Kind.featureNames).map(FeatureName.table) ?? []
      let names = (0..<UInt8(64)).filter { unknown >> UInt64($0) & 1 != 0 }.map { bit in
        (Incompatible.names + stored).first { $0.field == 0 && $0.bit == bit }?.name
          ?? "unnamed feature of bit \(bit)"
      }
      throw FormatProblem(
        .unsupported,
        "needs what is not done here: \(names.joined(separator: ", "));"
          + " convert it with qemu-img convert -O qcow2")
    }
    guard first(HeaderExtension.Kind.encryption) == nil else {
      throw FormatProblem(.unsupported, "has an encryption header, which is not known here")
    }
    let isConsistent = autoclear & Autoclear.bitmaps != 0
    guard !isConsistent || bitmaps != nil else {
      throw .corrupt("it claims consistent bitmaps and has none")
    }
  }

  private mutating func parseBackingName(
    _ bytes: [UInt8], _ offset: UInt64
  ) throws(FormatProblem) {
    guard offset != 0 else { return }
    let length: UInt32 = bytes.number(at: 16)
    guard length > 0, length <= Limit.backingName, offset >= UInt64(extensionsEnd),
      offset <= UInt64(clusterSize), UInt64(length) <= UInt64(clusterSize) - offset
    else { throw .corrupt("the name of its backing file is not within its first cluster") }
    backingNameOffset = Int(offset)
    backingName = Array(bytes[backingNameOffset..<backingNameOffset + Int(length)])
  }
}
