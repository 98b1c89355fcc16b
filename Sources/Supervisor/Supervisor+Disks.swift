import Brokering
import QMP

extension Supervisor {
  public func limitDisk(
    _ desktop: DesktopID, to limits: DiskLimits
  ) async throws(LaunchError) {
    // Its bus, and so its name, is what the pool said when the VMM was started.
    let drives = try await command(desktop, .drives).elements ?? []
    for drive in drives where drive["removable"] == false {
      guard let name = drive["device"]?.text, limits.differ(from: drive["inserted"]) else {
        continue
      }
      try await command(desktop, .limit(drive: name, limits))
    }
  }
}

extension DiskLimits {
  /// By the names of QMP's arguments.
  var values: [(name: String, value: Int?)] {
    [
      ("bps", bandwidth), ("bps_max", bandwidthBurst), ("iops", operations),
      ("iops_max", operationsBurst),
    ]
  }

  /// Whether a drive has others; those of a VMM that knows none are 0.
  fileprivate func differ(from medium: JSON?) -> Bool {
    values.contains { (medium?[$0.name]?.whole ?? 0) != ($0.value ?? 0) }
  }
}
