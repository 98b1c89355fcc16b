/// What a snapshot says of the machine that it is of, to be compared with the one that is to
/// go on from it. Devices compare their own states besides.
struct MachineDescription: Codable, Equatable {
  struct Disk: Codable, Equatable {
    var name: String
    var size: UInt64
  }

  var version = 1
  var memory: UInt64
  var processors: Int
  var devices: [String]
  var disks: [Disk]

  /// What is different in `other`, for people; `nil` when nothing is.
  func difference(from other: MachineDescription) -> String? {
    if memory != other.memory {
      return "it has \(other.memory >> 20) MiB of memory instead of \(memory >> 20)"
    }
    if processors != other.processors {
      return "it has \(other.processors) processors instead of \(processors)"
    }
    let (missing, added) = (
      devices.filter { !other.devices.contains($0) }, other.devices.filter { !devices.contains($0) }
    )
    if !missing.isEmpty { return "it lacks \(missing.joined(separator: ", "))" }
    if !added.isEmpty { return "it has \(added.joined(separator: ", ")) besides" }
    for (disk, wanted) in zip(other.disks, disks) where disk != wanted {
      return "disk \(disk.name) has \(disk.size) bytes instead of \(wanted.size)"
    }
    return disks.count == other.disks.count ? nil : "it has another number of disks"
  }
}

extension Board {
  var description: MachineDescription {
    MachineDescription(
      memory: configuration.memory, processors: cpus.count, devices: deviceNames.sorted(),
      disks: drives.diskImages.map { .init(name: $0.name, size: $0.size) })
  }
}
