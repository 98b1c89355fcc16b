extension Qcow2Header {
  /// What is torn neither by a crash nor by a concurrent reader.
  static let sectorSize = 512

  private var length: Int {
    version == 2 ? Size.version2 : additional.isEmpty ? Size.ours : Size.ours + additional.count
  }

  /// The fixed part. The name's place is the caller's.
  func fields(nameOffset: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    bytes.put(Self.magic, at: 0)
    bytes.put(version, at: 4)
    bytes.put(UInt64(backingName == nil ? 0 : nameOffset), at: 8)
    bytes.put(UInt32(backingName?.count ?? 0), at: 16)
    bytes.put(clusterBits, at: 20)
    bytes.put(size, at: 24)
    bytes.put(l1Count, at: 36)
    bytes.put(l1Offset, at: 40)
    bytes.put(refcountTableOffset, at: 48)
    bytes.put(refcountTableClusters, at: 56)
    bytes.put(snapshotCount, at: 60)
    bytes.put(snapshotsOffset, at: 64)
    guard version >= 3 else { return bytes }
    bytes.put(incompatible, at: 72)
    bytes.put(compatible, at: 80)
    bytes.put(autoclear, at: 88)
    bytes.put(refcountOrder, at: 96)
    bytes.put(UInt32(length), at: 100)
    bytes[Size.version3] = compression.rawValue
    bytes.replaceSubrange(Size.ours..., with: additional)
    return bytes
  }

  /// Everything up to the end of the extensions.
  func fieldsAndExtensions(nameOffset: Int) -> [UInt8] {
    fields(nameOffset: nameOffset) + extensions.flatMap(\.encoded)
      + HeaderExtension(kind: HeaderExtension.Kind.end, data: []).encoded
  }

  /// The format comes first and the table of names, which nothing depends on, last.
  mutating func orderExtensions() {
    func rank(_ kind: UInt32) -> Int {
      switch kind {
      case HeaderExtension.Kind.backingFormat: 0
      case HeaderExtension.Kind.bitmaps: 1
      case HeaderExtension.Kind.featureNames: 3
      default: 2
      }
    }
    extensions = (0...3).flatMap { wanted in extensions.filter { rank($0.kind) == wanted } }
  }

  /// Names another backing file, or none.
  mutating func setBacking(_ name: String?, format: String?) {
    backingName = name.map { Array($0.utf8) }
    extensions.removeAll { $0.kind == HeaderExtension.Kind.backingFormat }
    if let format {
      extensions.append(
        HeaderExtension(kind: HeaderExtension.Kind.backingFormat, data: Array(format.utf8)))
    }
    orderExtensions()
  }

  /// How a header takes the place of `former`, step by step with a barrier after each, so
  /// that one or the other is there at any time: the first sector changes at once and last.
  /// The table of feature names is left out where it is in the way of that.
  ///
  /// - Throws: when it does not fit into the first cluster.
  mutating func replacing(
    _ former: Qcow2Header?
  ) throws(FormatProblem) -> [(offset: Int, bytes: [UInt8])] {
    let name = backingName ?? []
    var end = fieldsAndExtensions(nameOffset: 0).count
    if end + name.count > Self.sectorSize, first(HeaderExtension.Kind.featureNames) != nil {
      extensions.removeAll { $0.kind == HeaderExtension.Kind.featureNames }
      end = fieldsAndExtensions(nameOffset: 0).count
    }
    var place = end
    if end + name.count > Self.sectorSize, let former, !name.isEmpty {
      place = Self.freePlace(for: name.count, beyond: end, former)
    }
    guard place + name.count <= clusterSize else {
      throw FormatProblem(
        .unsupported,
        "has no room for its header in clusters of \(clusterSize) bytes;"
          + " use a shorter path or larger clusters")
    }
    var bytes = fieldsAndExtensions(nameOffset: place)
    (extensionsEnd, backingNameOffset) = (end, name.isEmpty ? 0 : place)
    func sectors(_ bytes: [UInt8]) -> [UInt8] {
      bytes + [UInt8](repeating: 0, count: bytes.count.padding(to: Self.sectorSize))
    }
    if end <= Self.sectorSize, place >= Self.sectorSize, place % Self.sectorSize == 0 {
      return [(place, sectors(name)), (0, sectors(bytes))]
    }
    bytes = sectors(bytes + name)
    let rest = Array(bytes.dropFirst(Self.sectorSize))
    return (rest.isEmpty ? [] : [(Self.sectorSize, rest)]) + [
      (0, Array(bytes.prefix(Self.sectorSize)))
    ]
  }

  /// Where a name does not touch what `former` needs; the first place of all where there is
  /// none such.
  private static func freePlace(for count: Int, beyond end: Int, _ former: Qcow2Header) -> Int {
    let used = [
      0..<former.extensionsEnd,
      former.backingNameOffset..<former.backingNameOffset + (former.backingName?.count ?? 0),
    ]
    let start = end + end.padding(to: sectorSize)
    let places = stride(from: start, through: former.clusterSize - count, by: sectorSize)
    return places.first { place in
      let sectors = place..<place + count + count.padding(to: sectorSize)
      return used.allSatisfy { !$0.overlaps(sectors) }
    } ?? end
  }
}
