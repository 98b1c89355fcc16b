import Brokering
import ControlAPI

extension HostChecks {
  /// Whether the host has memory for all desktops that its pools may have.
  static func pools(in site: Site) -> [Check] {
    guard site.memory.reading != nil, !site.pools.isEmpty else { return [] }
    let (wanted, limit) = (site.memoryOfFullPoolsMiB, site.memory.limitMiB)
    let detail =
      "\(wanted) MiB for all desktops that pools may have, \(limit) MiB may be promised"
    guard wanted > limit else {
      return [Check(name: "memory of pools", state: .ok, detail: detail)]
    }
    return [
      Check(
        name: "memory of pools", state: .warning, detail: detail,
        remedy: "give pools less --size or --memory, or set a higher memory.overcommit_ratio: "
          + "otherwise some who log in wait for others to leave")
    ]
  }
}
