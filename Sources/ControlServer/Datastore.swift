import Brokering
import Foundation

/// The disk that desktops' own disks are on.
struct Datastore {
  /// Where it is, or will be.
  let path: String

  /// Refuses what cannot succeed: `count` more desktops of the image than there are.
  /// `freed` bytes of others go away meanwhile.
  func check(
    roomFor count: Int, of image: Image, freed: UInt64 = 0, pool: PoolName
  ) throws(BrokerError) {
    guard count > 0, image.kind == .disk, let each = cost(of: image), let free else { return }
    let (total, overflow) = each.multipliedReportingOverflow(by: UInt64(count))
    let wanted = overflow ? .max : total - min(freed, total)
    guard wanted > free else { return }
    throw BrokerError(
      .storage,
      "pool '\(pool)' has no room for \(count) spare(s): each is a copy of "
        + "\(Self.text(each)) of '\(image.path)', and \(path) has \(Self.text(free)) free: make "
        + "room there, or keep fewer with --spares")
  }

  /// What a copy of the image takes, holes left out; `nil` where none is made, or copies
  /// share storage.
  func cost(of image: Image) -> UInt64? {
    // Desktops have overlays over images of the library.
    if image.path.hasPrefix(path + "/images/") { return nil }
    var status = stat()
    // SAFETY: stat fills the structure given or fails.
    guard stat(image.path, &status) == 0 else { return nil }
    let allocated = UInt64(clamping: status.st_blocks) << 9
    return sharesStorage(with: image.path) ? nil : min(allocated, UInt64(clamping: status.st_size))
  }

  /// XFS and Btrfs make copies within themselves that take nothing.
  private func sharesStorage(with image: String) -> Bool {
    let table = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
    let mounts = table.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
    /// Place and type of the file system that a path is on.
    func mount(of path: String) -> [String]? {
      let above = mounts.filter { mount in
        mount.count > 2 && (path + "/").hasPrefix(mount[1] == "/" ? "/" : mount[1] + "/")
      }
      return above.max { $0[1].count < $1[1].count }.map { Array($0[1...2]) }
    }
    guard let here = mount(of: existing), here == mount(of: image) else { return false }
    return ["xfs", "btrfs"].contains(here[1])
  }

  private var free: UInt64? {
    var status = statvfs()
    // SAFETY: statvfs fills the structure given or fails.
    guard statvfs(existing, &status) == 0 else { return nil }
    let (bytes, overflow) = UInt64(status.f_bavail)
      .multipliedReportingOverflow(by: UInt64(status.f_frsize))
    return overflow ? nil : bytes
  }

  /// The directory, or the one it will be made in.
  private var existing: String {
    var place = path
    while access(place, F_OK) != 0, place.count > 1 {
      place = URL(fileURLWithPath: place).deletingLastPathComponent().path
    }
    return place
  }

  private static func text(_ bytes: UInt64) -> String {
    bytes < 10 << 20 ? "\(bytes >> 10) KiB" : "\(bytes >> 20) MiB"
  }
}
